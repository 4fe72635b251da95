package pack

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"path"
	"slices"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"
)

// maxPath is the length in bytes, with its end, of the longest name and link text that the kernel unpacks (PATH_MAX in
// linux/limits.h; init/initramfs.c silently drops longer ones).
const maxPath = 4096

// write writes the tree as a cpio archive in the newc format of
// Documentation/driver-api/early-userspace/buffer-format.rst. The bytes depend on nothing but the entries: they are
// sorted, numbered in that order, and their times are 0. The length is a multiple of 4, so that the kernel finds another
// archive right behind it.
func (t tree) write(ctx context.Context, w io.Writer) error {
	out := cpio.Newc.Writer(w)
	for _, n := range t.inOrder() {
		if err := writeNode(ctx, out, n); err != nil {
			return err
		}
	}
	return cpio.WriteTrailer(out)
}

// compareNames orders names element by element, so that a directory comes just before what is in it.
func compareNames(a, b string) int {
	for a != "" && b != "" {
		var x, y string
		x, a, _ = strings.Cut(a, "/")
		y, b, _ = strings.Cut(b, "/")
		if c := cmp.Compare(x, y); c != 0 {
			return c
		}
	}
	return cmp.Compare(a, b)
}

// tree is the file tree of one archive while it is put together: the entries by their names.
type tree map[string]*node

// node is one name in the tree.
type node struct {
	Entry
	file  *node  // what LinkTo names, or the node itself
	names uint64 // number of names of the file
	inode uint64 // number of the file
	// bearer is set on the first of a file's names, which carries the content (init/initramfs.c, maybe_link).
	bearer bool
}

// newTree checks the entries and makes the tree.
func newTree(entries []Entry) (tree, error) {
	t := tree{}
	for _, e := range entries {
		if err := check(e); err != nil {
			return nil, err
		}
		if t[e.Name] != nil {
			return nil, fmt.Errorf("%s is there twice", e.Name)
		}
		n := &node{Entry: e, names: 1}
		n.file = n
		t[e.Name] = n
	}
	if err := t.addParents(); err != nil {
		return nil, err
	}
	return t, t.resolveLinks()
}

// check checks an entry by itself.
func check(e Entry) error {
	top, _, _ := strings.Cut(e.Name, "/") // also of a directory that addParents makes
	switch {
	case !validName(e.Name):
		return fmt.Errorf("invalid file name %q", e.Name)
	case top == cpio.Trailer:
		return fmt.Errorf("invalid file name %q: a record named %s ends a ramdisk", e.Name, cpio.Trailer)
	case len(e.Name) >= maxPath:
		return fmt.Errorf("file name %.40q... is %d bytes long: the kernel takes %d", e.Name, len(e.Name), maxPath-1)
	case e.LinkTo != "":
	case e.Mode&unpackable != 0:
		return fmt.Errorf("%s is a %s, which a ramdisk cannot hold", e.Name, kind(e.Mode))
	case e.Mode&fs.ModeSymlink != 0 && (e.Target == "" || len(e.Target) >= maxPath || strings.ContainsRune(e.Target, 0)):
		return fmt.Errorf("%s is a symbolic link to %.40q, which the kernel does not take", e.Name, e.Target)
	case e.Mode.IsRegular() && e.Open == nil:
		return fmt.Errorf("%s has no content", e.Name)
	case e.Mode.IsRegular() && (e.Size < 0 || e.Size > math.MaxUint32):
		return fmt.Errorf("%s is %d bytes long: a file in a ramdisk has at most %d", e.Name, e.Size, uint32(math.MaxUint32))
	}
	return nil
}

// validName reports whether a name is a path as Entry wants it. Unlike fs.ValidPath's, its bytes need not be UTF-8, as
// Linux's need not.
func validName(name string) bool {
	for element := range strings.SplitSeq(name, "/") {
		if element == "" || element == "." || element == ".." || strings.ContainsRune(element, 0) {
			return false
		}
	}
	return true
}

// addParents makes the directories that are missing: the kernel drops a file without one.
func (t tree) addParents() error {
	for _, name := range slices.Collect(maps.Keys(t)) {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			parent, listed := t[dir]
			if !listed {
				parent = &node{Entry: directory(dir), names: 1}
				parent.file = parent
				t[dir] = parent
			}
			if !parent.Mode.IsDir() || parent.LinkTo != "" {
				return fmt.Errorf("%s lies below %s, which is no directory", name, dir)
			}
			if listed {
				break // its own parents are looked at in its own turn
			}
		}
	}
	return nil
}

// resolveLinks joins the names of a file.
func (t tree) resolveLinks() error {
	for name, n := range t {
		if n.LinkTo == "" {
			continue
		}
		n.file = t[n.LinkTo]
		if n.file == nil || n.file.LinkTo != "" || !n.file.Mode.IsRegular() {
			return fmt.Errorf("%s is a hard link to %s, which is no regular file here", name, n.LinkTo)
		}
		n.file.names++
	}
	return nil
}

// inOrder returns the nodes in the archive's order and numbers their files in it.
func (t tree) inOrder() []*node {
	nodes := slices.SortedFunc(maps.Values(t), func(a, b *node) int { return compareNames(a.Name, b.Name) })
	inode := uint64(0)
	for _, n := range nodes {
		if n.file.inode == 0 {
			inode++
			n.file.inode = inode
			n.bearer = true
		}
	}
	return nodes
}

// writeNode writes one node's record.
func writeNode(ctx context.Context, out cpio.RecordWriter, n *node) error {
	f := n.file
	r := cpio.Record{Info: cpio.Info{
		Name: n.Name, Mode: unixMode(f.Mode), UID: uint64(f.UID), GID: uint64(f.GID), Ino: f.inode, NLink: f.names,
	}}
	switch {
	case f.Mode.IsDir():
		r.NLink = 2
	case f.Mode&fs.ModeSymlink != 0:
		r.FileSize = uint64(len(f.Target))
		r.ReaderAt = strings.NewReader(f.Target)
	case f.Mode&fs.ModeDevice != 0:
		r.Rmajor, r.Rminor = uint64(f.Major), uint64(f.Minor)
	case f.Mode.IsRegular() && n.bearer:
		c := &content{ctx: ctx, entry: f.Entry}
		defer c.Close()
		r.FileSize = uint64(f.Size)
		r.ReaderAt = c
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return out.WriteRecord(r)
}

// unixMode returns a mode in the bits of stat(2).
func unixMode(mode fs.FileMode) uint64 {
	bits := uint64(mode.Perm())
	for _, b := range []struct {
		have fs.FileMode
		bit  uint64
	}{
		{fs.ModeSetuid, cpio.S_ISUID}, {fs.ModeSetgid, cpio.S_ISGID}, {fs.ModeSticky, cpio.S_ISVTX},
	} {
		if mode&b.have != 0 {
			bits |= b.bit
		}
	}
	switch {
	case mode.IsDir():
		return bits | cpio.S_IFDIR
	case mode&fs.ModeSymlink != 0:
		return bits | cpio.S_IFLNK
	case mode&fs.ModeNamedPipe != 0:
		return bits | cpio.S_IFIFO
	case mode&fs.ModeCharDevice != 0:
		return bits | cpio.S_IFCHR
	case mode&fs.ModeDevice != 0:
		return bits | cpio.S_IFBLK
	}
	return bits | cpio.S_IFREG
}

// content reads an entry's content from beginning to end, opening it at the first read.
type content struct {
	ctx    context.Context
	entry  Entry
	open   io.ReadCloser
	offset int64
}

// ReadAt implements io.ReaderAt for offsets that follow on each other, which is how the archive's writer reads.
func (c *content) ReadAt(p []byte, offset int64) (n int, err error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	if offset != c.offset {
		return 0, fmt.Errorf("%s read out of order", c.entry.Name)
	}
	if c.open == nil {
		if c.open, err = c.entry.Open(); err != nil {
			return 0, err
		}
	}
	n, err = io.ReadFull(c.open, p)
	c.offset += int64(n)
	ended := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
	switch {
	case c.offset > c.entry.Size || ended && c.offset < c.entry.Size:
		return n, fmt.Errorf("%s changed while being packed", c.entry.Name)
	case ended:
		return n, io.EOF
	case err != nil:
		return n, fmt.Errorf("read %s: %w", c.entry.Name, err)
	}
	return n, nil
}

// Close closes what was opened.
func (c *content) Close() error {
	if c.open == nil {
		return nil
	}
	err := c.open.Close()
	c.open = nil
	return err
}

// file, directory and charDevice make entries that belong to root.

func file(name string, mode fs.FileMode, data []byte) Entry {
	return Entry{Name: name, Mode: mode, Size: int64(len(data)), Open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(data)), nil
	}}
}

func directory(name string) Entry { return Entry{Name: name, Mode: fs.ModeDir | 0o755} }

func charDevice(name string, mode fs.FileMode, major, minor uint32) Entry {
	return Entry{Name: name, Mode: fs.ModeDevice | fs.ModeCharDevice | mode, Major: major, Minor: minor}
}
