package vfiouser

import (
	"bytes"
	"math"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const rw = DMARead | DMAWrite

func TestDMAReachesScatteredMemory(t *testing.T) {
	d := new(DMA)
	defer d.UnmapAll()
	a, b := memfd(t, 3*4096), memfd(t, 4096)
	require.NoError(t, d.Map(0x2000, 4096, 0, rw, dup(t, b)))
	require.NoError(t, d.Map(0x1000, 4096, 8192, rw, dup(t, a)))
	require.NoError(t, d.Map(0x3000, 4096, 0, rw, dup(t, a)))
	require.Len(t, d.files, 2, "one descriptor a file")

	want := bytes.Repeat([]byte("nitro!"), 2000)[:2*4096+50]
	require.NoError(t, d.WriteAt(want, 0x1fce))
	got := make([]byte, len(want))
	require.Error(t, d.ReadAt(got, 0x1fcf), "one byte too far")
	require.NoError(t, d.ReadAt(got, 0x1fce))
	require.Equal(t, want, got)

	require.NoError(t, d.Unmap(0x2000, 4096))
	require.ErrorIs(t, d.ReadAt(got, 0x1fce), unix.EFAULT)
	require.NoError(t, d.ReadAt(got[:50], 0x1fce))
	require.Equal(t, want[:50], got[:50])
}

func TestDMARefusesAccess(t *testing.T) {
	d := new(DMA)
	defer d.UnmapAll()
	fd := memfd(t, 8192)
	require.NoError(t, d.Map(0x1000, 4096, 0, rw, dup(t, fd)))
	require.NoError(t, d.Map(0x2000, 4096, 4096, DMARead, dup(t, fd)))
	require.NoError(t, d.Map(0x3000, 4096, 0, rw, -1))
	require.NoError(t, d.Map(math.MaxUint64-4095, 4096, 0, rw, dup(t, fd)))

	b := make([]byte, 8192)
	require.True(t, d.Mapped(0x1000, 4096))
	require.True(t, d.Mapped(0x5000, 0))
	require.True(t, d.Mapped(math.MaxUint64, 1))
	require.False(t, d.Mapped(math.MaxUint64, 2))
	require.False(t, d.Mapped(0x1000, math.MaxUint64))
	require.False(t, d.Mapped(0x1000, 4097), "partly read-only")
	require.False(t, d.Mapped(0x3000, 1), "no file")
	require.False(t, d.Mapped(0xfff, 2))
	require.NoError(t, d.ReadAt(b, 0x1000))
	require.ErrorIs(t, d.WriteAt(bytes.Repeat([]byte{1}, 8192), 0x1000), unix.EFAULT)
	require.ErrorIs(t, d.Zero(0x2000, 1), unix.EFAULT)
	require.ErrorIs(t, d.ReadAt(b, 0x2000), unix.EFAULT)
	require.NoError(t, d.ReadAt(b[:4096], 0x1000))
	require.Equal(t, make([]byte, 4096), b[:4096], "a refused write changed memory")

	require.NoError(t, unix.Ftruncate(fd, 100))
	require.ErrorIs(t, d.ReadAt(b[:4096], 0x1000), unix.EFAULT, "file cut short")
}

func TestDMAMapIsChecked(t *testing.T) {
	d := new(DMA)
	fd, event := memfd(t, 8192), eventfd(t)
	readOnly, err := unix.Open(t.TempDir()+"/f", unix.O_CREAT|unix.O_RDONLY|unix.O_CLOEXEC, 0o600)
	require.NoError(t, err)
	defer unix.Close(readOnly)
	before := openFDs(t)
	require.NoError(t, d.Map(0x4000, 4096, 0, rw, dup(t, fd)))
	for name, tc := range map[string]struct {
		addr, size, off uint64
		fd              int
		want            error
	}{
		"same":            {0x4000, 4096, 0, fd, unix.EEXIST},
		"last byte":       {0x3000, 4097, 0, fd, unix.EEXIST},
		"first byte":      {0x4fff, 4096, 0, fd, unix.EEXIST},
		"inside":          {0x4100, 16, 0, fd, unix.EEXIST},
		"around":          {0x3000, 8192 + 4096, 0, -1, unix.EEXIST},
		"empty":           {0x1000, 0, 0, fd, unix.EINVAL},
		"wraps":           {math.MaxUint64, 2, 0, -1, unix.EINVAL},
		"offset too big":  {0x1000, 1, math.MaxInt64, -1, unix.EINVAL},
		"file too short":  {0x1000, 4096, 4097, fd, unix.EINVAL},
		"file read-only":  {0x1000, 1, 0, readOnly, unix.EINVAL},
		"not a file":      {0x1000, 4096, 0, event, unix.EINVAL},
		"not even opened": {0x1000, 4096, 0, 9999, unix.EBADF},
	} {
		t.Run(name, func(t *testing.T) {
			given := tc.fd
			if given >= 0 && given != 9999 {
				given = dup(t, given)
			}
			require.ErrorIs(t, d.Map(tc.addr, tc.size, tc.off, rw, given), tc.want)
		})
	}
	d.UnmapAll()
	require.NoError(t, d.Map(0x4000, 4096, 0, rw, dup(t, fd)), "usable after UnmapAll")
	d.UnmapAll()
	require.Equal(t, before, openFDs(t))
}

func TestDMALimits(t *testing.T) {
	d := new(DMA)
	defer d.UnmapAll()
	for i := range uint64(MaxDMAMaps) {
		require.NoError(t, d.Map(i*4096, 4096, 0, rw, -1))
	}
	require.ErrorIs(t, d.Map(1<<40, 4096, 0, rw, -1), unix.ENOSPC)
	d.UnmapAll()
	for i := range uint64(MaxDMAFiles) {
		fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
		require.NoError(t, err)
		require.NoError(t, unix.Ftruncate(fd, 4096))
		require.NoError(t, d.Map(i*4096, 4096, 0, rw, fd))
	}
	require.ErrorIs(t, d.Map(1<<40, 4096, 0, rw, dup(t, memfd(t, 4096))), unix.ENOSPC)
	require.NoError(t, d.Map(1<<40, 4096, 0, rw, dup(t, d.maps[0].file.fd)), "a file known already")
}

func TestDMAZero(t *testing.T) {
	const size = 1 << 20
	fd := memfd(t, size)
	d := new(DMA)
	defer d.UnmapAll()
	require.NoError(t, d.Map(0, size, 0, rw, dup(t, fd)))
	ones := bytes.Repeat([]byte{1}, size)
	for _, r := range [][2]int{{0, size}, {1, size - 2}, {4096, 8192}, {100, 200}, {4000, 200}, {8191, 4098}, {5, 0}} {
		require.NoError(t, d.WriteAt(ones, 0))
		require.NoError(t, d.Zero(uint64(r[0]), uint64(r[1])))
		want := bytes.Clone(ones)
		clear(want[r[0]:][:r[1]])
		got := make([]byte, size)
		require.NoError(t, d.ReadAt(got, 0))
		require.True(t, bytes.Equal(want, got), "%d bytes at %d", r[1], r[0])
	}

	require.NoError(t, d.Zero(0, size))
	var st unix.Stat_t
	require.NoError(t, unix.Fstat(fd, &st))
	require.Zero(t, st.Blocks, "pages are given back")
	require.EqualValues(t, size, st.Size)
}

// What Zero falls back to where a file takes no holes.
func TestWriteZeros(t *testing.T) {
	fd := memfd(t, 8192)
	_, err := unix.Pwrite(fd, bytes.Repeat([]byte{1}, 8192), 0)
	require.NoError(t, err)
	require.NoError(t, writeZeros(fd, 10, 8000))
	got := make([]byte, 8192)
	require.NoError(t, readFull(fd, got, 0))
	want := bytes.Repeat([]byte{1}, 8192)
	clear(want[10:8010])
	require.Equal(t, want, got)
}

// Unmap returns only when nobody uses the memory any more.
func TestDMAUnmapWaitsForAccesses(t *testing.T) {
	d := new(DMA)
	fd := memfd(t, 4096)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			b := make([]byte, 4096)
			for {
				select {
				case <-stop:
					return
				default:
					_ = d.ReadAt(b, 0)
				}
			}
		})
	}
	for range 200 {
		require.NoError(t, d.Map(0, 4096, 0, rw, dup(t, fd)))
		require.NoError(t, d.Unmap(0, 4096))
	}
	close(stop)
	wg.Wait()
}
