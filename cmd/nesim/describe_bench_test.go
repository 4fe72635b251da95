package main

import (
	"context"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/eif"
)

// BenchmarkDescribeEIF compares describe-eif of an image of 512 MiB with sha384sum of the same file, whole processes
// both, in turn; the best time of each counts. memory-MiB is the most that describe-eif has had resident.
func BenchmarkDescribeEIF(b *testing.B) {
	u := newUser(b)
	path := bigImage(b, 512<<20)
	describe, sum := time.Hour, time.Hour
	var most int64
	timed := func(best *time.Duration, cmd *exec.Cmd) *os.ProcessState {
		start := time.Now()
		require.NoError(b, cmd.Run())
		*best = min(*best, time.Since(start))
		return cmd.ProcessState
	}
	for b.Loop() {
		state := timed(&describe, u.command(context.Background(), "describe-eif", "--eif-path", path))
		most = max(most, state.SysUsage().(*syscall.Rusage).Maxrss)
		timed(&sum, exec.Command("sha384sum", path))
	}
	b.ReportMetric(describe.Seconds(), "describe-eif-s")
	b.ReportMetric(sum.Seconds(), "sha384sum-s")
	b.ReportMetric(describe.Seconds()/sum.Seconds(), "ratio")
	b.ReportMetric(float64(most)/1024, "memory-MiB")
	b.ReportMetric(0, "ns/op")
}

// bigImage builds an image of about so many bytes, most of them the application's.
func bigImage(b *testing.B, size int64) string {
	path := filepath.Join(b.TempDir(), "big.eif")
	f, err := os.Create(path)
	require.NoError(b, err)
	defer f.Close()
	noise := rand.NewChaCha8([32]byte{})
	part := func(n int64) io.Reader { return io.LimitReader(noise, n) }
	_, err = eif.Build(context.Background(), f, eif.BuildSpec{
		Kernel: part(16 << 20), Metadata: []byte("{}"), Ramdisks: []io.Reader{part(4 << 20), part(size - 20<<20)},
	})
	require.NoError(b, err)
	return path
}
