package oci

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/eif/pack"
)

func TestUpperLayersCoverLowerOnes(t *testing.T) {
	require.Equal(t, map[string]string{
		"etc": "/", "etc/a": "new", "etc/b": "kept", "now-dir": "/", "now-dir/in": "x", "now-file": "y", "twice": "second",
	}, flatten(t,
		tarOf(t, dir("etc"), regular("etc/a", "old"), regular("etc/b", "kept"), regular("now-dir", ""), dir("now-file"), regular("now-file/in", "")),
		tarOf(t, dir("./etc/"), regular("./etc/a", "new"), dir("now-dir"), regular("now-dir/in", "x"), regular("now-file", "y"),
			regular("twice", "first"), regular("twice", "second")),
	))
}

func TestWhiteoutsRemoveWhatIsBelow(t *testing.T) {
	below := tarOf(t, regular("a/1", "1"), regular("a/2", "2"), regular("b/1", "1"), regular("c/deep/1", "1"), regular("d", "d"))
	require.Equal(t, map[string]string{
		"a": "/", "a/2": "2",
		"b": "/", "b/new": "n", // opaque, but not for its own layer
		"d": "again",
	}, flatten(t, below, tarOf(t,
		regular("b/new", "n"), regular("b/.wh..wh..opq", ""), regular("a/.wh.1", ""), regular(".wh.c", ""),
		regular("d", "again"), regular(".wh.d", ""), regular("none/.wh.x", ""), regular(".wh..wh.plnk", ""))))
}

func TestAWhiteoutInANewDirectorySparesWhatALinkOfThatNameLedTo(t *testing.T) {
	require.Equal(t, map[string]string{"bin": "/", "bin/sh": "new", "usr": "/", "usr/bin": "/", "usr/bin/sh": "old"}, flatten(t,
		tarOf(t, regular("usr/bin/sh", "old"), symlink("bin", "usr/bin")),
		tarOf(t, regular("bin/.wh..wh..opq", ""), dir("bin"), regular("bin/sh", "new"))))
}

func TestHardLinksAreOneFileAcrossLayers(t *testing.T) {
	require.Equal(t, map[string]string{
		"a": "text", "b": "= a", "dir": "/", "dir/c": "= a", "l": "-> a", "m": "-> a", "n": "other",
	}, flatten(t,
		tarOf(t, regular("z", "text"), hardLink("b", "z"), symlink("l", "a"), hardLink("m", "l"), hardLink("n", "/z"), hardLink("z", "z")),
		tarOf(t, hardLink("a", "b"), hardLink("dir/c", "/b"), regular(".wh.z", ""), regular("n", "other"))))
}

func TestNothingLeavesTheRootDirectory(t *testing.T) {
	require.Equal(t, map[string]string{
		"abs": "-> /etc", "dots": "-> ../../../../etc", "etc": "/", "etc/1": "1", "etc/2": "2", "etc/3": "3", "etc/4": "4",
		"etc/up": "-> ..", "5": "5", "hard": "= etc/1", "gone": "-> a/b", "a": "/", "a/b": "/", "a/b/6": "6",
	}, flatten(t, tarOf(t,
		symlink("abs", "/etc"), symlink("dots", "../../../../etc"), dir("etc"), symlink("gone", "a/b"),
		regular("abs/1", "1"), regular("dots/2", "2"), regular("../../etc/3", "3"), regular("/etc/4", "4"),
		symlink("etc/up", ".."), regular("etc/up/5", "5"), hardLink("hard", "../../etc/1"), regular("gone/6", "6"),
	)))
}

func TestEveryKindOfFileKeepsWhatItHas(t *testing.T) {
	image, _ := open(t, save(t, newImage(t, v1.Config{Cmd: []string{"/app"}}, tarOf(t,
		tar.Header{Typeflag: tar.TypeReg, Name: "su", Mode: 0o4755, Uid: 1, Gid: 70000},
		tar.Header{Typeflag: tar.TypeDir, Name: "tmp", Mode: 0o1777},
		tar.Header{Typeflag: tar.TypeChar, Name: "null", Mode: 0o666, Devmajor: 1, Devminor: 3},
		tar.Header{Typeflag: tar.TypeBlock, Name: "disk", Mode: 0o660, Devmajor: 8, Devminor: 1},
		tar.Header{Typeflag: tar.TypeFifo, Name: "pipe", Mode: 0o600},
		symlink("link", "text"),
	))))
	tree, err := image.flatten(t.Context())
	require.NoError(t, err)
	files := tree.entries()
	for i := range files {
		files[i].Open = nil
	}
	require.Equal(t, []pack.Entry{
		{Name: "disk", Mode: fs.ModeDevice | 0o660, Major: 8, Minor: 1},
		{Name: "link", Mode: fs.ModeSymlink | 0o777, Target: "text"},
		{Name: "null", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o666, Major: 1, Minor: 3},
		{Name: "pipe", Mode: fs.ModeNamedPipe | 0o600},
		{Name: "su", Mode: fs.ModeSetuid | 0o755, UID: 1, GID: 70000},
		{Name: "tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
	}, files)
}

func TestASparseFileIsFilledIn(t *testing.T) {
	layer := sparseLayer(1<<20, 1)
	list := map[string]string{}
	items, _, err := newTree().scan(t.Context(), section(layer), &spool{dir: t.TempDir(), limit: 2 << 20})
	require.NoError(t, err)
	for _, it := range items {
		text, err := io.ReadAll(it.file.data)
		require.NoError(t, err)
		list[it.name] = string(text)
	}
	require.Equal(t, map[string]string{"sparse0": strings.Repeat("\x00", 1048064) + strings.Repeat("x", 512)}, list)
}

func section(data []byte) *io.SectionReader {
	return io.NewSectionReader(bytes.NewReader(data), 0, int64(len(data)))
}

// sparseLayer returns a layer of sparse files of some size, of which only the last 512 bytes are no hole, as GNU tar
// writes it (https://www.gnu.org/software/tar/manual/html_node/PAX-1.html); archive/tar only reads it.
func sparseLayer(size int64, files int) (layer []byte) {
	block := func(name string, kind byte, size int) []byte {
		b := make([]byte, 512)
		copy(b, name)
		copy(b[100:], fmt.Sprintf("0000644\x000000000\x000000000\x00%011o\x0000000000000\x00        %c", size, kind))
		copy(b[257:], "ustar\x0000")
		sum := 0
		for _, c := range b {
			sum += int(c)
		}
		copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
		return b
	}
	padded := func(text string) []byte { return append([]byte(text), make([]byte, 512-len(text))...) }
	for n := range files {
		record := func(key string, value any) string {
			text := fmt.Sprintf(" %s=%v\n", key, value)
			length := len(text) + 2
			if length > 99 || len(fmt.Sprint(length))+len(text) != length {
				panic(text)
			}
			return fmt.Sprint(length) + text
		}
		records := record("GNU.sparse.major", 1) + record("GNU.sparse.minor", 0) +
			record("GNU.sparse.name", fmt.Sprint("sparse", n)) + record("GNU.sparse.realsize", size)
		layer = slices.Concat(layer,
			block("x", 'x', len(records)), padded(records),
			block("sparse", '0', 1024), padded(fmt.Sprintf("1\n%d\n512\n", size-512)), bytes.Repeat([]byte{'x'}, 512))
	}
	return append(layer, make([]byte, 1024)...)
}

func TestSparseFilesAreBoundedByWhatResults(t *testing.T) {
	tr, s := newTree(), &spool{dir: t.TempDir(), limit: 1 << 30}
	tr.limit = 200 << 20
	defer s.Close()
	_, _, err := tr.scan(t.Context(), section(sparseLayer(64<<20, 3)), s)
	require.NoError(t, err)
	var st unix.Stat_t
	require.NoError(t, unix.Fstat(int(s.file.Fd()), &st))
	require.EqualValues(t, 3*64<<20, st.Size)
	require.Less(t, st.Blocks*512, int64(2<<20), "holes take no room")

	tr, s = newTree(), &spool{dir: t.TempDir(), limit: 1 << 30}
	tr.limit = 200 << 20
	_, _, err = tr.scan(t.Context(), section(sparseLayer(64<<20, 4)), s)
	require.Nil(t, s.file, "nothing is unpacked")
	require.EqualError(t, err, "sparse3: the image's files are longer than the limit of 200 MiB in all, which an enclave's memory would have to hold")
	require.Contains(t, refused(t, saveUncompressed(t, v1.Config{Cmd: []string{"/app"}}, sparseLayer(1<<40, 1))),
		"layer 1: sparse0: it is 1.0 TiB long: a file in a ramdisk has less than 4 GiB")
}

func TestUnpackingStopsWhereverItIs(t *testing.T) {
	layer := slices.Concat(sparseLayer(1<<20, 3)[:3*5*512], tarOf(t, regular("a", "b")))
	for n := 1; ; n++ { // the context ends with the n-th reading from the layer
		ctx, cancel := context.WithCancel(t.Context())
		data := &endingReader{bytes.NewReader(layer), n, cancel}
		tr, s := newTree(), &spool{dir: t.TempDir(), limit: 1 << 30}
		items, _, err := tr.scan(ctx, io.NewSectionReader(data, 0, int64(len(layer))), s)
		if err == nil && ctx.Err() != nil {
			err = tr.apply(ctx, items)
		}
		require.NoError(t, s.Close())
		cancel()
		if data.left > 0 {
			require.NoError(t, err)
			require.Greater(t, n, 10)
			break
		}
		require.ErrorIs(t, err, context.Canceled, n)
	}

	image, err := Open(t.Context(), save(t, newImage(t, v1.Config{Cmd: []string{"/app"}}, tarOf(t, regular("a", "b")))), Options{SpoolDir: t.TempDir()})
	require.NoError(t, err)
	defer image.Close()
	ctx, cancel := context.WithCancel(t.Context())
	image.options.Progress = func(int64, int64) { cancel() }
	_, err = image.Application(ctx)
	require.ErrorIs(t, err, context.Canceled)
}

// endingReader calls a function with one of its readings.
type endingReader struct {
	io.ReaderAt
	left int
	end  func()
}

func (e *endingReader) ReadAt(p []byte, offset int64) (int, error) {
	if e.left--; e.left == 0 {
		e.end()
	}
	return e.ReaderAt.ReadAt(p, offset)
}

func TestFilesAndNamesAreBounded(t *testing.T) {
	layer := tarOf(t, regular("a", ""), regular("b", ""))
	for want, tr := range map[string]*tree{
		"it has more than 1048576 files":                {root: newTree().root, limit: 1, files: maxFiles - 1},
		"its file names are longer than 256 MiB in all": {root: newTree().root, limit: 1, names: maxNames - 1},
	} {
		_, _, err := tr.scan(t.Context(), section(layer), &spool{dir: t.TempDir()})
		require.ErrorContains(t, err, want)
	}
}

func TestLinksAreFollowedSoOftenInAll(t *testing.T) {
	tr := newTree()
	tr.links = maxWalks - 1
	require.NoError(t, tr.apply(t.Context(), []item{{name: "d", file: directory()}, {name: "l", file: link("d")}, {name: "l/1", file: directory()}}))
	require.ErrorContains(t, tr.apply(t.Context(), []item{{name: "l/2", file: directory()}}), "lead through symbolic links of more than 256 MiB in all")
}

func TestLayersThatMakeNoSenseAreRefused(t *testing.T) {
	long := strings.Repeat("d/", maxName/2)
	for want, entries := range map[string][]tar.Header{
		"which is no directory":                       {regular("a", ""), regular("a/b", "")},
		"it is a hard link to none, which is not":     {hardLink("a", "none")},
		"it is a hard link to d, which is a dir":      {dir("d"), hardLink("a", "d")},
		"leads through more than 40 symbolic":         {symlink("a", "b"), symlink("b", "a"), regular("a/x", "")},
		"a file name is 4097 bytes long":              {regular(long+"x", "")},
		"the whiteout \"a/.wh...\" removes nothing":   {regular("a/.wh...", "")},
		"the whiteout \".wh.\" removes nothing":       {regular(".wh.", "")},
		"its target is 4096 bytes long":               {symlink("a", long)},
		"root directory is no directory":              {symlink("/", "a")},
		"unknown type 'Z'":                            {{Typeflag: 'Z', Name: "z"}},
		"its user number 4294967296 is out of range":  {{Typeflag: tar.TypeReg, Name: "u", Uid: 1 << 32}},
		"its major number 4294967296 is out of range": {{Typeflag: tar.TypeChar, Name: "c", Devmajor: 1 << 32}},
	} {
		require.Contains(t, refused(t, save(t, newImage(t, v1.Config{Cmd: []string{"/app"}}, tarOf(t, entries...)))), want)
	}
}

func TestALinkedDirectoryDoesNotMakePathsLongerThanTheyMayBe(t *testing.T) {
	half := strings.Repeat("d/", maxName/4)
	require.Contains(t, refused(t, save(t, newImage(t, v1.Config{Cmd: []string{"/app"}}, tarOf(t,
		dir(half), symlink("a", half), dir("a/"+half), symlink("b", half+half), dir("b/x"), dir("b/"+half))))), "bytes long")
}

func TestABombIsDefusedAtTheLimit(t *testing.T) {
	path := save(t, newImage(t, v1.Config{Cmd: []string{"/app"}}, tarOf(t, regular("zeroes", string(make([]byte, 1<<20))))))
	image, err := Open(t.Context(), path, Options{SpoolDir: t.TempDir()})
	require.NoError(t, err)
	defer image.Close()
	image.spool.limit = 512 << 10
	_, err = image.Application(t.Context())
	require.ErrorContains(t, err, "layer 1: unpacked its layers are longer than the limit of 512 KiB")
}

// FuzzLayers applies two arbitrary layers: what is accepted must be a tree that can be packed.
func FuzzLayers(f *testing.F) {
	f.Add(
		tarOf(f, regular("usr/bin/sh", "old"), symlink("bin", "usr/bin"), hardLink("h", "bin/sh")),
		tarOf(f, regular("bin/.wh..wh..opq", ""), dir("bin"), regular("bin/sh", "new"), regular(".wh.h", "")),
	)
	f.Add(tarOf(f, symlink("a", "../../b"), symlink("b", "/a"), regular("a/x", "")), []byte{})
	f.Fuzz(func(t *testing.T, first, second []byte) {
		tr, s := newTree(), &spool{dir: t.TempDir(), limit: 2 << 20}
		defer s.Close()
		for _, data := range [][]byte{first, second} {
			items, _, err := tr.scan(t.Context(), io.NewSectionReader(bytes.NewReader(data), 0, int64(len(data))), s)
			if err != nil || tr.apply(t.Context(), items) != nil {
				return
			}
		}
		for range 2 { // the second time from what was read before
			require.NoError(t, pack.WriteArchive(t.Context(), io.Discard, valid(tr.entries())))
		}
	})
}

// valid drops what package pack refuses by itself, with a good error: names and sizes that a ramdisk cannot hold.
func valid(entries []pack.Entry) (kept []pack.Entry) {
	for _, e := range entries {
		if top, _, _ := strings.Cut(e.Name, "/"); top == "TRAILER!!!" || strings.ContainsRune(e.Name, 0) || e.Mode&fs.ModeSymlink != 0 && e.Target == "" {
			return nil
		}
		kept = append(kept, e)
	}
	return kept
}
