package vhosttest

import (
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// CheckLeaks makes sure that the test leaves no descriptor and no goroutine behind.
func CheckLeaks(t testing.TB) {
	files := func() int {
		d, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		return len(d)
	}
	a, b := Pair(t) // the runtime keeps descriptors of its own from now on
	a.Close()
	b.Close()
	beforeFiles, before := files(), runtime.NumGoroutine()
	t.Cleanup(func() {
		for end := time.Now().Add(time.Minute); runtime.NumGoroutine() > before || files() > beforeFiles; {
			require.False(t, time.Now().After(end), "descriptors or goroutines are left")
			time.Sleep(time.Millisecond)
		}
	})
}
