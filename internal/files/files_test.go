package files

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/internal/files/smalldisk"
)

// text reads a file.
func text(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(b)
}

// names lists a folder.
func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func modeOf(t *testing.T, path string) fs.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	return info.Mode()
}

func TestAFileIsReplacedWhole(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out")
	require.NoError(t, Write(path, []byte("one"), 0o600))
	require.Equal(t, fs.FileMode(0o600), modeOf(t, path))
	old, err := os.Open(path)
	require.NoError(t, err)
	defer old.Close()
	require.NoError(t, WriteTo(path, 0o666, func(f *os.File) error {
		require.Equal(t, "one", text(t, path), "until the new one is complete")
		_, err := io.WriteString(f, "two")
		return err
	}))
	require.Equal(t, "two", text(t, path))
	require.Equal(t, fs.FileMode(0o600), modeOf(t, path), "a file keeps its mode")
	before, err := io.ReadAll(old)
	require.NoError(t, err)
	require.Equal(t, "one", string(before), "who has the old file open still reads all of it")
	require.Equal(t, []string{"out"}, names(t, dir))
}

func TestAFileThatShouldBePrivateBecomesPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(path, nil, 0o644))
	require.NoError(t, Write(path, []byte("secret"), 0o600))
	require.Equal(t, fs.FileMode(0o600), modeOf(t, path))
}

func TestANewFileHasTheModeOfTheUmask(t *testing.T) {
	defer unix.Umask(unix.Umask(0o027))
	path := filepath.Join(t.TempDir(), "out")
	require.NoError(t, Write(path, nil, 0o666))
	require.Equal(t, fs.FileMode(0o640), modeOf(t, path))
}

func TestAFailureLeavesTheOldFileAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out")
	require.NoError(t, Write(path, []byte("old"), 0o666))
	failure := errors.New("no more")
	require.ErrorIs(t, WriteTo(path, 0o666, func(f *os.File) error {
		_, err := io.WriteString(f, "half")
		return errors.Join(err, failure)
	}), failure)
	require.Panics(t, func() { _ = WriteTo(path, 0o666, func(*os.File) error { panic("bug") }) })
	require.Equal(t, "old", text(t, path))
	require.Equal(t, []string{"out"}, names(t, dir))
}

func TestADiskThatFillsUpLeavesTheOldFileAndNothingElse(t *testing.T) {
	dir := smalldisk.New(t)
	path := filepath.Join(dir, "out")
	require.NoError(t, Write(path, []byte("old"), 0o666))
	err := Write(path, make([]byte, 2*smalldisk.Size), 0o666)
	require.ErrorContains(t, err, path+": ", "by the name that the user knows")
	require.True(t, errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EFBIG), err)
	require.Equal(t, "old", text(t, path))
	require.Equal(t, []string{"out"}, names(t, dir))
}

func TestErrorsNameThePathThatWasGiven(t *testing.T) {
	dir := t.TempDir()
	none := filepath.Join(dir, "none", "out")
	require.EqualError(t, Write(none, nil, 0o666), "write "+none+": no such file or directory")
	require.EqualError(t, Write(dir, nil, 0o666), "write "+dir+": is a directory")
	require.ErrorIs(t, Write(dir+"/", nil, 0o666), unix.EISDIR)
	loop := filepath.Join(dir, "loop")
	require.NoError(t, os.Symlink("loop", loop))
	require.ErrorIs(t, Write(loop, nil, 0o666), unix.ELOOP)
	long := filepath.Join(dir, string(bytes.Repeat([]byte("x"), 255)))
	require.NoError(t, Write(long, nil, 0o666), "a name as long as names may be")
}

func TestALinkStaysAndItsFileIsReplaced(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "a"), 0o700))
	require.NoError(t, os.Symlink("a/second", filepath.Join(dir, "first")))
	require.NoError(t, os.Symlink("third", filepath.Join(dir, "a", "second")))
	for _, content := range []string{"made", "replaced"} {
		require.NoError(t, Write(filepath.Join(dir, "first"), []byte(content), 0o666))
		require.Equal(t, content, text(t, filepath.Join(dir, "a", "third")))
	}
	link, err := os.Readlink(filepath.Join(dir, "first"))
	require.NoError(t, err)
	require.Equal(t, "a/second", link)
	require.Equal(t, []string{"second", "third"}, names(t, filepath.Join(dir, "a")))
}

func TestAnotherUsersLinkInASharedFolderIsNotFollowed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make another user's link")
	}
	dir, victim := t.TempDir(), filepath.Join(t.TempDir(), "victim")
	require.NoError(t, os.Chmod(dir, 0o777|fs.ModeSticky))
	link := filepath.Join(dir, "out")
	require.NoError(t, os.Symlink(victim, link))
	require.NoError(t, os.Lchown(link, 12345, 12345))
	require.ErrorIs(t, Write(link, []byte("x"), 0o666), fs.ErrPermission)
	require.NoFileExists(t, victim)
}

func TestStreamsAreWrittenToAndStay(t *testing.T) {
	require.NoError(t, Write(os.DevNull, []byte("gone"), 0o600))
	require.Equal(t, fs.ModeDevice|fs.ModeCharDevice, modeOf(t, os.DevNull).Type())

	fifo := filepath.Join(t.TempDir(), "fifo")
	require.NoError(t, unix.Mkfifo(fifo, 0o600))
	got := make(chan string)
	go func() {
		b, _ := os.ReadFile(fifo)
		got <- string(b)
	}()
	require.NoError(t, Write(fifo, []byte("through"), 0o600))
	require.Equal(t, "through", <-got)
	require.Equal(t, fs.ModeNamedPipe, modeOf(t, fifo).Type())
}

func TestADescriptorOfTheProcessIsWrittenToWhereItStands(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	require.NoError(t, Write(fmt.Sprintf("/dev/fd/%d", w.Fd()), []byte("piped"), 0o600))
	require.NoError(t, w.Close())
	b, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Equal(t, "piped", string(b))

	// As of `nesim ... --output /dev/stdout >>file`: what is there stays, and so does the file.
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, []byte("before "), 0o600))
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, Write(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), []byte("after"), 0o600))
	require.Equal(t, "before after", text(t, path))

	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(pair[0])
	require.NoError(t, Write(fmt.Sprintf("/dev/fd/%d", pair[1]), []byte("socket"), 0o600))
	unix.Close(pair[1])
	buf := make([]byte, 64)
	n, err := unix.Read(pair[0], buf)
	require.NoError(t, err)
	require.Equal(t, "socket", string(buf[:n]))
}

func TestAStreamGetsNothingOfWhatIsNotComplete(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	require.Error(t, WriteTo(fmt.Sprintf("/dev/fd/%d", w.Fd()), 0o600, func(f *os.File) error {
		_, _ = io.WriteString(f, "half")
		return errors.New("no more")
	}))
	require.NoError(t, w.Close())
	b, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Empty(t, b)
}

func TestAFileThatMayNotBeWrittenIsNotReplaced(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may write to all files")
	}
	path := filepath.Join(t.TempDir(), "out")
	require.NoError(t, os.WriteFile(path, []byte("mine"), 0o400))
	require.ErrorIs(t, Write(path, []byte("other"), 0o666), fs.ErrPermission)
}

func TestANewFileIsNotPutOverAnother(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "one")
	var writers sync.WaitGroup
	var mu sync.Mutex
	made := 0
	for i := range 8 {
		writers.Go(func() {
			err := WriteNew(path, 0o600, func(f *os.File) error { _, err := fmt.Fprint(f, i); return err })
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				made++
			} else if !errors.Is(err, fs.ErrExist) {
				t.Error(err)
			}
		})
	}
	writers.Wait()
	require.Equal(t, 1, made)
	require.Equal(t, []string{"one"}, names(t, dir))
	require.NoError(t, os.Symlink("nowhere", filepath.Join(dir, "link")))
	require.ErrorIs(t, WriteNew(filepath.Join(dir, "link"), 0o600, func(*os.File) error { return nil }), fs.ErrExist)
}

func TestAGrowingFileAppearsWithItsFirstRecord(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	require.NoError(t, os.WriteFile(path, []byte("old"), 0o640))
	l, err := NewLive(path, 0o666)
	require.NoError(t, err)
	require.Equal(t, "old", text(t, path))
	require.Equal(t, []string{"log"}, names(t, dir))
	for i := range 3 {
		_, err := fmt.Fprintf(l, "%d\n", i)
		require.NoError(t, err)
		require.Equal(t, "0\n1\n2\n"[:2*i+2], text(t, path), "at once")
	}
	require.NoError(t, l.Sync())
	require.NoError(t, l.Close())
	require.Equal(t, fs.FileMode(0o640), modeOf(t, path))

	l, err = NewLive(path, 0o666)
	require.NoError(t, err)
	l.Discard()
	require.Equal(t, "0\n1\n2\n", text(t, path), "nothing was recorded")
	l, err = NewLive(path, 0o666)
	require.NoError(t, err)
	require.NoError(t, l.Close())
	require.Empty(t, text(t, path), "a recording of nothing")
	_, err = NewLive(filepath.Join(dir, "none", "x"), 0o666)
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestAGrowingFileKeepsItsWholeRecordsOnAFullDisk(t *testing.T) {
	dir := smalldisk.New(t)
	path := filepath.Join(dir, "log")
	l, err := NewLive(path, 0o666)
	require.NoError(t, err)
	record := append(bytes.Repeat([]byte("x"), 9999), '\n')
	written := 0
	for ; err == nil; written++ {
		require.Less(t, written, 2*smalldisk.Size/len(record))
		_, err = l.Write(record)
	}
	require.True(t, errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EFBIG), err)
	require.Len(t, text(t, path), (written-1)*len(record))
	_, again := l.Write([]byte("x\n"))
	require.Equal(t, err, again, "nothing is written behind a gap")
	require.NoError(t, l.Close())
}
