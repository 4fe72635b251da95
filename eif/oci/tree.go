package oci

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/nesim/nesim/eif/pack"
)

// Limits of the file tree of an image, in which a few 100000 files with a few dozen bytes of name are many.
const (
	maxFiles = 1 << 20   // files, and entries of all layers
	maxNames = 256 << 20 // bytes of all their names
	maxName  = 4096      // bytes of a name (PATH_MAX in linux/limits.h)
	maxWalks = 256 << 20 // bytes of the targets of all symbolic links followed on the way to files
)

// file is what names stand for; hard links are names of one file.
type file struct {
	mode         fs.FileMode
	uid, gid     uint32
	data         *io.SectionReader // of a regular file
	target       string            // of a symbolic link
	major, minor uint32            // of a device
}

// node is a name in the tree.
type node struct {
	file     *file
	children map[string]*node // not nil for a directory
}

func newNode(f *file) *node {
	n := &node{file: f}
	if f.mode.IsDir() {
		n.children = map[string]*node{}
	}
	return n
}

// tree is a root directory.
type tree struct {
	root         *node
	files, names int   // made so far, also those that are gone
	bytes, limit int64 // of the contents of all files so far, and how many they may be
	links        int   // bytes of the targets of symbolic links followed so far
}

func newTree() *tree { return &tree{root: newNode(directory()), limit: maxSize} }

// count notes a file, with the bytes of its name, and refuses too many.
func (t *tree) count(name int) error {
	t.files++
	t.names += name
	switch {
	case name >= maxName:
		return fmt.Errorf("a file name is %d bytes long, %d is the limit", name, maxName-1)
	case t.files > maxFiles:
		return fmt.Errorf("it has more than %d files", maxFiles)
	case t.names > maxNames:
		return fmt.Errorf("its file names are longer than %d MiB in all", maxNames>>20)
	}
	return nil
}

// size notes a file's content, and refuses too much: of one file for a ramdisk, and of all for an enclave's memory.
func (t *tree) size(n int64) error {
	if n < 0 || n > math.MaxUint32 {
		return fmt.Errorf("it is %s long: a file in a ramdisk has less than 4 GiB", humanize.IBytes(uint64(n)))
	}
	if t.bytes += n; t.bytes > t.limit {
		return fmt.Errorf("the image's files are longer than the limit of %s in all, which an enclave's memory would have to hold", humanize.IBytes(uint64(t.limit)))
	}
	return nil
}

// place is where a name is or may be: in a directory. The root directory is in itself, with the name "".
type place struct {
	dir    *node
	name   string
	length int // bytes of the path that leads here
}

// node returns what is there, or nil.
func (p place) node() *node {
	if p.name == "" {
		return p.dir
	}
	return p.dir.children[p.name]
}

// How walk goes.
const (
	makeDirs   = 1 << iota // make the directories on the way that are missing, instead of stopping
	followLast             // follow the last element too where it is a symbolic link
)

// errNoDirectory is what lies on the way to a file.
var errNoDirectory = errors.New("is no directory")

// walk follows a path from the root, and symbolic links on its way, and cannot leave the root: as in chroot(2), ".." of
// the root is the root. It returns nil where a directory on the way is missing.
func (t *tree) walk(path string, how int) (*place, error) {
	above := []place{{dir: t.root}} // from the root down to the directory we are in
	todo := elements(path)
	for links := 0; len(todo) > 0; {
		name, here := todo[0], above[len(above)-1]
		todo = todo[1:]
		if name == ".." {
			above = above[:max(len(above)-1, 1)]
			continue
		}
		next := place{here.node(), name, here.length + len(name) + 1}
		n := next.node()
		link := n != nil && n.file.mode&fs.ModeSymlink != 0
		switch {
		case len(todo) == 0 && !(link && how&followLast != 0):
			return &next, nil
		case n == nil && how&makeDirs == 0:
			return nil, nil
		case n == nil:
			if _, err := t.put(next, directory()); err != nil {
				return nil, err
			}
			above = append(above, next)
		case n.children != nil:
			above = append(above, next)
		case link:
			if links++; links > maxLinks {
				return nil, fmt.Errorf("%.100q leads through more than %d symbolic links", path, maxLinks)
			}
			if t.links += len(n.file.target); t.links > maxWalks {
				return nil, fmt.Errorf("its files lead through symbolic links of more than %d MiB in all", maxWalks>>20)
			}
			if strings.HasPrefix(n.file.target, "/") {
				above = above[:1]
			}
			todo = append(elements(n.file.target), todo...)
		default:
			return nil, fmt.Errorf("%.100q leads through %.100q, which %w", path, name, errNoDirectory)
		}
	}
	return &above[len(above)-1], nil
}

// elements splits a path, without what is empty or ".".
func elements(path string) []string {
	return slices.DeleteFunc(strings.Split(path, "/"), func(e string) bool { return e == "" || e == "." })
}

// find returns what a path names, symbolic links followed, or nil.
func (t *tree) find(path string) (*node, error) {
	at, err := t.walk(path, followLast)
	if at == nil {
		return nil, err
	}
	return at.node(), nil
}

// put puts a file into the tree, in place of what was there; of a directory that replaces a directory the contents
// stay.
func (t *tree) put(at place, f *file) (*node, error) {
	if err := t.count(at.length); err != nil {
		return nil, err
	}
	old := at.node()
	if old != nil && old.children != nil && f.mode.IsDir() {
		old.file = f
		return old, nil
	}
	if at.name == "" {
		return nil, fmt.Errorf("its root directory is no directory")
	}
	n := newNode(f)
	at.dir.children[at.name] = n
	return n, nil
}

// entries lists the tree for package pack.
func (t *tree) entries() []pack.Entry {
	var list []pack.Entry
	first := map[*file]string{} // of regular files, the name met first
	var visit func(prefix string, n *node)
	visit = func(prefix string, n *node) {
		for _, name := range slices.Sorted(maps.Keys(n.children)) {
			child, path := n.children[name], prefix+name
			e := child.file.entry(path)
			if child.file.mode.IsRegular() {
				if was, ok := first[child.file]; ok {
					e = pack.Entry{Name: path, LinkTo: was}
				} else {
					first[child.file] = path
				}
			}
			list = append(list, e)
			visit(path+"/", child)
		}
	}
	visit("", t.root)
	return list
}

func (f *file) entry(name string) pack.Entry {
	e := pack.Entry{
		Name: name, Mode: f.mode, UID: f.uid, GID: f.gid, Target: f.target, Major: f.major, Minor: f.minor,
	}
	if f.mode.IsRegular() {
		e.Size = f.data.Size()
		e.Open = func() (io.ReadCloser, error) { return io.NopCloser(io.NewSectionReader(f.data, 0, e.Size)), nil }
	}
	return e
}

// directory returns a directory as it is made where an image has none.
func directory() *file { return &file{mode: fs.ModeDir | 0o755} }
