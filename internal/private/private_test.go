package private

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func folder(t *testing.T) string {
	dir, err := os.MkdirTemp("", "private-") // t.TempDir's names are too long for sockets
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestAFolderIsMadePrivateAndOpened(t *testing.T) {
	path := filepath.Join(folder(t), "a", "b")
	_, err := Open(path)
	require.ErrorIs(t, err, fs.ErrNotExist)
	for range 2 {
		d, err := Make(path)
		require.NoError(t, err)
		require.NoError(t, d.Close())
	}
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.EqualValues(t, 0o700, info.Mode().Perm())
}

func TestLinksOfTheUsersOwnLeadToAFolderButAreNone(t *testing.T) {
	dir := folder(t)
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "real", "nesim"), 0o700))
	require.NoError(t, os.Symlink("real/../real", filepath.Join(dir, "link")))
	require.NoError(t, os.Symlink(filepath.Join(dir, "link"), filepath.Join(dir, "again")))
	require.NoError(t, os.Symlink("real/nesim", filepath.Join(dir, "last")))
	require.NoError(t, os.Symlink("loop", filepath.Join(dir, "loop")))
	for name, good := range map[string]bool{
		"link/nesim": true, "again/nesim": true, "again/../link/nesim/": true,
		"last": false, "link/../last": false, "loop": false, "loop/nesim": false,
	} {
		d, err := Open(dir + "/" + name)
		require.Equal(t, good, err == nil, "%s: %v", name, err)
		if good {
			d.Close()
		}
	}
}

func TestASocketIsPrivateFromItsFirstMomentOn(t *testing.T) {
	dir := folder(t)
	l, err := Listen(filepath.Join(dir, "s"))
	require.NoError(t, err)
	defer l.Close()
	info, err := os.Stat(filepath.Join(dir, "s"))
	require.NoError(t, err)
	require.EqualValues(t, 0o600, info.Mode().Perm())
	d, err := Open(dir)
	require.NoError(t, err)
	defer d.Close()
	c, err := d.Dial(t.Context(), "s")
	require.NoError(t, err)
	defer c.Close()
	pid, uid, err := Peer(c)
	require.NoError(t, err)
	require.Equal(t, os.Getpid(), pid)
	require.Equal(t, os.Geteuid(), uid)
}

func TestWhatIsNoPrivateSocketIsNotConnectedTo(t *testing.T) {
	dir := folder(t)
	l, err := Listen(filepath.Join(dir, "good"))
	require.NoError(t, err)
	defer l.Close()
	require.NoError(t, os.Symlink("good", filepath.Join(dir, "link")))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	open, err := net.Listen("unix", filepath.Join(dir, "open"))
	require.NoError(t, err)
	defer open.Close()
	require.NoError(t, os.Chmod(filepath.Join(dir, "open"), 0o666))
	stale, err := Listen(filepath.Join(dir, "stale"))
	require.NoError(t, err)
	stale.SetUnlinkOnClose(false)
	stale.Close()
	d, err := Open(dir)
	require.NoError(t, err)
	defer d.Close()
	for name, want := range map[string]error{"none": unix.ENOENT, "stale": unix.ECONNREFUSED, "link": nil, "file": nil, "open": nil} {
		_, err := d.Dial(t.Context(), name)
		if want != nil {
			require.ErrorIs(t, err, want, name)
		} else {
			require.ErrorAs(t, err, new(*Error), name)
		}
	}
	for _, name := range []string{"link", "file"} {
		_, err := Dial(t.Context(), filepath.Join(dir, name))
		require.ErrorAs(t, err, new(*Error), name)
	}
}

func TestAFolderWithALongNameIsReached(t *testing.T) {
	dir := filepath.Join(folder(t), strings.Repeat("x", 200))
	d, err := Make(dir)
	require.NoError(t, err)
	defer d.Close()
	_, err = d.Dial(t.Context(), "s")
	require.True(t, errors.Is(err, unix.ENOENT), "%v", err)
}

func TestALinkIsNotOpenedAsAFile(t *testing.T) {
	dir := folder(t)
	d, err := Open(dir)
	require.NoError(t, err)
	defer d.Close()
	require.NoError(t, os.Symlink("elsewhere", filepath.Join(dir, "lock")))
	_, err = d.OpenFile("lock", os.O_CREATE|os.O_RDWR, 0o600)
	require.ErrorAs(t, err, new(*Error))
	require.NoFileExists(t, filepath.Join(dir, "elsewhere"))
	require.NoError(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	_, err = d.OpenFile("fifo", os.O_RDONLY, 0)
	require.ErrorAs(t, err, new(*Error))
}
