// Package smalldisk gives tests a disk that fills up.
package smalldisk

import (
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Size is how much fits on the disk, or in one file, in bytes.
const Size = 64 << 10

// New returns a folder on a file system of Size: a tmpfs where one can be mounted. Elsewhere files of this process and of
// those that it starts cannot grow beyond Size until the test ends, by RLIMIT_FSIZE: writing fails with EFBIG then, in
// place of ENOSPC.
func New(t testing.TB) string {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=64k"); err == nil {
		t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
		return dir
	}
	LimitFiles(t, Size)
	return dir
}

// Fill leaves no room on a disk that New returned.
func Fill(t testing.TB, dir string) {
	f, err := os.Create(filepath.Join(dir, Filler))
	require.NoError(t, err)
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	require.NoError(t, f.Close())
	if errors.Is(err, unix.EFBIG) { // which bounds each file, not all
		limit(t, 0)
		return
	}
	require.ErrorIs(t, err, unix.ENOSPC)
}

// Filler is the file that fills the disk.
const Filler = "filler"

// LimitFiles bounds the size of files until the test ends.
func LimitFiles(t testing.TB, size uint64) {
	var before unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_FSIZE, &before))
	signal.Ignore(unix.SIGXFSZ) // in children too
	limit(t, size)
	t.Cleanup(func() {
		require.NoError(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &before))
		signal.Reset(unix.SIGXFSZ)
	})
}

func limit(t testing.TB, size uint64) {
	var now unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_FSIZE, &now))
	now.Cur = size
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &now))
}
