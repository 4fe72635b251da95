package oci

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/require"

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
	_, app := open(t, save(t, newImage(t, v1.Config{Cmd: []string{"/app"}}, tarOf(t,
		tar.Header{Typeflag: tar.TypeReg, Name: "su", Mode: 0o4755, Uid: 1, Gid: 70000},
		tar.Header{Typeflag: tar.TypeDir, Name: "tmp", Mode: 0o1777},
		tar.Header{Typeflag: tar.TypeChar, Name: "null", Mode: 0o666, Devmajor: 1, Devminor: 3},
		tar.Header{Typeflag: tar.TypeBlock, Name: "disk", Mode: 0o660, Devmajor: 8, Devminor: 1},
		tar.Header{Typeflag: tar.TypeFifo, Name: "pipe", Mode: 0o600},
		symlink("link", "text"),
	))))
	for i := range app.Files {
		app.Files[i].Open = nil
	}
	require.Equal(t, []pack.Entry{
		{Name: "disk", Mode: fs.ModeDevice | 0o660, Major: 8, Minor: 1},
		{Name: "link", Mode: fs.ModeSymlink | 0o777, Target: "text"},
		{Name: "null", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o666, Major: 1, Minor: 3},
		{Name: "pipe", Mode: fs.ModeNamedPipe | 0o600},
		{Name: "su", Mode: fs.ModeSetuid | 0o755, UID: 1, GID: 70000},
		{Name: "tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
	}, app.Files)
}

func TestASparseFileIsFilledIn(t *testing.T) {
	// As GNU tar writes it (https://www.gnu.org/software/tar/manual/html_node/PAX-1.html); archive/tar only reads it.
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
	records := "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n26 GNU.sparse.name=sparse\n31 GNU.sparse.realsize=1048576\n"
	layer := slices.Concat(
		block("x", 'x', len(records)), padded(records),
		block("sparse", '0', 1024), padded("1\n1048064\n512\n"), bytes.Repeat([]byte{'x'}, 512), make([]byte, 1024))
	list := map[string]string{}
	items, _, err := newTree().scan(t.Context(), io.NewSectionReader(bytes.NewReader(layer), 0, int64(len(layer))), &spool{dir: t.TempDir(), limit: 2 << 20})
	require.NoError(t, err)
	for _, it := range items {
		text, err := io.ReadAll(it.file.data)
		require.NoError(t, err)
		list[it.name] = string(text)
	}
	require.Equal(t, map[string]string{"sparse": strings.Repeat("\x00", 1048064) + strings.Repeat("x", 512)}, list)
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
	require.ErrorContains(t, err, "layer 1: unpacked it is longer than the limit of 512 KiB")
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
			if err != nil || tr.apply(items) != nil {
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
		if e.Name == "TRAILER!!!" || strings.ContainsRune(e.Name, 0) || e.Mode&fs.ModeSymlink != 0 && e.Target == "" {
			return nil
		}
		kept = append(kept, e)
	}
	return kept
}
