//go:build !amd64 && !arm64

package tsc

import (
	"fmt"
	"runtime"
)

// HostHz returns the frequency of a guest's TSC under TCG on this host, in Hz, which is not known here.
func HostHz() (float64, error) {
	return 0, fmt.Errorf("the frequency of a guest's time stamp counter is not known on %s hosts", runtime.GOARCH)
}
