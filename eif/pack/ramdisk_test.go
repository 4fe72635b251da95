package pack

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math"
	"math/rand"
	"os/exec"
	"path"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/u-root/u-root/pkg/cpio"
)

func sample() []Entry {
	return []Entry{
		directory("bin"),
		file("bin/app", 0o755|fs.ModeSetuid, []byte("program")),
		{Name: "bin/other", LinkTo: "bin/app"},
		{Name: "a", LinkTo: "bin/app"},
		{Name: "bin.d", Mode: fs.ModeSymlink | 0o777, Target: "../../../etc/passwd"},
		{Name: "tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
		{Name: "data", Mode: 0o640, UID: 1000, GID: 100, Size: 3, Open: reader("abc", func() {})},
		{Name: "pipe", Mode: fs.ModeNamedPipe | 0o600},
		{Name: "disk", Mode: fs.ModeDevice | 0o660, Major: 8, Minor: 1},
		charDevice("null", 0o666, 1, 3),
		file("empty", 0o644, nil),
		file("deep/in/side", 0o600, []byte("x")),
	}
}

func TestARamdiskHoldsEveryKindOfFile(t *testing.T) {
	list := records(t, bytes.NewReader(archive(t, sample()...)))
	require.Equal(t, []string{
		"a", "bin", "bin/app", "bin/other", "bin.d", "data", "deep", "deep/in", "deep/in/side",
		"disk", "empty", "null", "pipe", "tmp",
	}, names(list))

	for name, want := range map[string]struct {
		mode  uint64
		links uint64
		text  string
	}{
		"a":            {cpio.S_IFREG | 0o4755, 3, "program"}, // the first name of the file has its content
		"bin/app":      {cpio.S_IFREG | 0o4755, 3, ""},
		"bin/other":    {cpio.S_IFREG | 0o4755, 3, ""},
		"bin.d":        {cpio.S_IFLNK | 0o777, 1, "../../../etc/passwd"},
		"tmp":          {cpio.S_IFDIR | 0o1777, 2, ""},
		"data":         {cpio.S_IFREG | 0o640, 1, "abc"},
		"pipe":         {cpio.S_IFIFO | 0o600, 1, ""},
		"disk":         {cpio.S_IFBLK | 0o660, 1, ""},
		"null":         {cpio.S_IFCHR | 0o666, 1, ""},
		"empty":        {cpio.S_IFREG | 0o644, 1, ""},
		"deep/in":      {cpio.S_IFDIR | 0o755, 2, ""}, // nobody listed it
		"deep/in/side": {cpio.S_IFREG | 0o600, 1, "x"},
	} {
		r, text := find(t, list, name)
		require.Equal(t, want.mode, r.Mode, name)
		require.Equal(t, want.links, r.NLink, name)
		require.Equal(t, want.text, text, name)
		require.Zero(t, r.MTime, name)
	}
	data, _ := find(t, list, "data")
	require.Equal(t, []uint64{1000, 100}, []uint64{data.UID, data.GID})
	disk, _ := find(t, list, "disk")
	require.Equal(t, []uint64{8, 1}, []uint64{disk.Rmajor, disk.Rminor})
	a, _ := find(t, list, "a")
	other, _ := find(t, list, "bin/other")
	require.Equal(t, a.Ino, other.Ino, "one file")
	require.NotEqual(t, a.Ino, data.Ino, "two files")
}

func TestTheOrderOfEntriesDoesNotMatter(t *testing.T) {
	want := archive(t, sample()...)
	for range 20 {
		entries := sample()
		rand.Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
		require.Equal(t, want, archive(t, entries...))
	}
}

func TestOtherToolsReadTheRamdisk(t *testing.T) {
	tool, err := exec.LookPath("bsdtar")
	if err != nil {
		tool, err = exec.LookPath("cpio")
	}
	if err != nil {
		t.Log("neither bsdtar nor cpio here: only our own reading is tested")
		return
	}
	cmd := exec.Command(tool, map[bool][]string{true: {"-tf", "-"}, false: {"-t", "--quiet"}}[path.Base(tool) == "bsdtar"]...)
	cmd.Stdin = bytes.NewReader(archive(t, sample()...))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err)
	require.Equal(t, len(sample())+2, bytes.Count(out, []byte("\n")))
}

func TestEntriesThatTheKernelWouldDropAreRefused(t *testing.T) {
	long := strings.Repeat("d/", maxPath/2)
	for want, e := range map[string][]Entry{
		`invalid file name "../x"`:                          {file("../x", 0, nil)},
		`invalid file name "/x"`:                            {file("/x", 0, nil)},
		`invalid file name "a\x00"`:                         {file("a\x00", 0, nil)},
		`invalid file name "."`:                             {directory(".")},
		`invalid file name "TRAILER!!!"`:                    {file("TRAILER!!!", 0, nil)},
		`invalid file name "TRAILER!!!/x/y"`:                {file("TRAILER!!!/x/y", 0, nil)}, // whose parent would be one
		"bytes long: the kernel takes 4095":                 {file(long+"x", 0, nil)},
		"x is there twice":                                  {file("x", 0, nil), directory("x")},
		"s is a socket, which a ramdisk cannot hold":        {{Name: "s", Mode: fs.ModeSocket}},
		"l is a symbolic link to \"\"":                      {{Name: "l", Mode: fs.ModeSymlink}},
		"l is a symbolic link to \"d/d":                     {{Name: "l", Mode: fs.ModeSymlink, Target: long}},
		"big is 4294967296 bytes long":                      {{Name: "big", Size: math.MaxUint32 + 1, Open: reader("", nil)}},
		"x/y lies below x, which is no directory":           {file("x", 0, nil), file("x/y", 0, nil)},
		"x is a hard link to y, which is no regular file":   {{Name: "x", LinkTo: "y"}},
		"x is a hard link to dir, which is no regular file": {{Name: "x", LinkTo: "dir"}, directory("dir")},
		"x is a hard link to x, which is no regular file":   {{Name: "x", LinkTo: "x"}},
		"h/x lies below h, which is no directory":           {file("f", 0, nil), {Name: "h", LinkTo: "f", Mode: fs.ModeDir}, file("h/x", 0, nil)},
		"nothing has no content":                            {{Name: "nothing"}},
	} {
		_, err := newTree(e)
		require.ErrorContains(t, err, want)
	}
}

func TestAFileThatChangesMeanwhileEndsThePacking(t *testing.T) {
	for what, e := range map[string]Entry{
		"shrinks": {Name: "log", Size: 5, Open: reader("four", func() {})},
		"grows":   {Name: "log", Size: 3, Open: reader("four", func() {})},
		"is gone": {Name: "log", Size: 3, Open: func() (io.ReadCloser, error) { return nil, errors.New("log changed while being packed") }},
	} {
		tr, err := newTree([]Entry{e})
		require.NoError(t, err)
		require.EqualError(t, tr.write(t.Context(), io.Discard), "log changed while being packed", what)
	}
}

func TestWhatWasOpenedIsClosed(t *testing.T) {
	for _, size := range []int64{4, 9} { // the second fails
		f := &closeCounter{Reader: strings.NewReader("four")}
		tr, err := newTree([]Entry{{Name: "f", Size: size, Open: func() (io.ReadCloser, error) { return f, nil }}})
		require.NoError(t, err)
		_ = tr.write(t.Context(), io.Discard)
		require.Equal(t, 1, f.closed)
	}
}

type closeCounter struct {
	io.Reader
	closed int
}

func (c *closeCounter) Close() error { c.closed++; return nil }

func TestPackingStopsInTheMiddleOfAFile(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	tr, err := newTree([]Entry{{Name: "f", Size: 1 << 20, Open: reader(strings.Repeat("x", 1<<20), cancel)}})
	require.NoError(t, err)
	require.ErrorIs(t, tr.write(ctx, io.Discard), context.Canceled)
}

// FuzzRamdisk packs a tree made of arbitrary names and texts: what is accepted must read back the same.
func FuzzRamdisk(f *testing.F) {
	f.Add("a/b", "text", "c", "a/b")
	f.Add("TRAILER!!!", "", "x", "TRAILER!!!")
	f.Add("a", "", "TRAILER!!!/0", "a")
	f.Fuzz(func(t *testing.T, name, text, link, target string) {
		tr, err := newTree([]Entry{
			file(name, 0o644, []byte(text)),
			{Name: link, Mode: fs.ModeSymlink | 0o777, Target: target},
		})
		if err != nil {
			return
		}
		var b bytes.Buffer
		require.NoError(t, tr.write(t.Context(), &b))
		list := records(t, bytes.NewReader(b.Bytes()))
		_, got := find(t, list, name)
		require.Equal(t, text, got)
		_, got = find(t, list, link)
		require.Equal(t, target, got)
	})
}
