package oci

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path"
	"strings"
)

// Whiteouts: files of a layer that remove files of the layers below (the OCI image specification's layer.md). AUFS has
// more names of the second's prefix, for its own use.
const (
	whiteout       = ".wh."
	whiteoutMeta   = ".wh..wh."
	whiteoutOpaque = ".wh..wh..opq" // removes all that is in the directory
)

// item is what a layer says of a name.
type item struct {
	name string
	file *file
	link string // of a hard link: the name it is another name of
}

// scan lists a layer, an uncompressed tar archive. Contents that do not lie in it as they are, those of sparse files,
// are written out into the spool, once the sizes of all files are known to be bearable. xattrs reports whether there are
// extended attributes that matter.
func (t *tree) scan(ctx context.Context, data *io.SectionReader, s *spool) (items []item, xattrs bool, err error) {
	sparse := map[int]*file{} // by where they stand
	r := tar.NewReader(data)
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			return nil, false, err
		}
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return items, xattrs, expand(ctx, data, sparse, s)
		}
		if err != nil {
			return nil, false, fmt.Errorf("its archive is damaged: %w", err)
		}
		name := inside(h.Name)
		if err := t.count(len(name)); err != nil {
			return nil, false, err
		}
		f, err := fileOf(h)
		if err == nil && f != nil && f.mode.IsRegular() {
			err = t.size(h.Size)
		}
		if err == nil && f != nil && f.mode.IsRegular() {
			if isSparse(h) {
				sparse[n] = f
			} else {
				f.data, err = content(h, data)
			}
		}
		if err != nil {
			return nil, false, fmt.Errorf("%.100s: %w", name, err)
		}
		switch {
		case h.Typeflag == tar.TypeLink:
			items = append(items, item{name: name, link: inside(h.Linkname)})
		case f != nil:
			items = append(items, item{name: name, file: f})
		}
		_, has := h.PAXRecords["SCHILY.xattr.security.capability"]
		xattrs = xattrs || has
	}
}

// fileOf returns the file that an entry of a layer is, without its content, or nil for an entry that is none of its own.
func fileOf(h *tar.Header) (*file, error) {
	for what, n := range map[string]int64{
		"user": int64(h.Uid), "group": int64(h.Gid), "major": h.Devmajor, "minor": h.Devminor,
	} {
		if n < 0 || n > math.MaxUint32 {
			return nil, fmt.Errorf("its %s number %d is out of range", what, n)
		}
	}
	f := &file{
		mode: h.FileInfo().Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky),
		uid:  uint32(h.Uid), gid: uint32(h.Gid),
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
	case tar.TypeDir:
		f.mode |= fs.ModeDir
	case tar.TypeSymlink:
		f.mode |= fs.ModeSymlink
		f.target = h.Linkname
		if len(f.target) >= maxName {
			return nil, fmt.Errorf("its target is %d bytes long, %d is the limit", len(f.target), maxName-1)
		}
	case tar.TypeChar:
		f.mode |= fs.ModeDevice | fs.ModeCharDevice
	case tar.TypeBlock:
		f.mode |= fs.ModeDevice
	case tar.TypeFifo:
		f.mode |= fs.ModeNamedPipe
	case tar.TypeLink, tar.TypeXGlobalHeader:
		return nil, nil
	default:
		return nil, fmt.Errorf("it is of the unknown type %q", h.Typeflag)
	}
	if f.mode&fs.ModeDevice != 0 {
		f.major, f.minor = uint32(h.Devmajor), uint32(h.Devminor)
	}
	return f, nil
}

// isSparse reports whether a regular file's content has holes, which are not in the archive.
func isSparse(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return h.Typeflag == tar.TypeGNUSparse
}

// content returns a reader of a regular file's content, which data has come to.
func content(h *tar.Header, data *io.SectionReader) (*io.SectionReader, error) {
	offset, err := data.Seek(0, io.SeekCurrent)
	if err == nil && h.Size > data.Size()-offset {
		err = errors.New("it is cut off")
	}
	if err != nil {
		return nil, err
	}
	return io.NewSectionReader(data, offset, h.Size), nil
}

// expand writes the contents of sparse files out.
func expand(ctx context.Context, data *io.SectionReader, sparse map[int]*file, s *spool) error {
	r := tar.NewReader(io.NewSectionReader(data, 0, data.Size()))
	for n := 0; len(sparse) > 0; n++ {
		h, err := r.Next()
		if err != nil {
			return fmt.Errorf("its archive is damaged: %w", err)
		}
		f := sparse[n]
		if f == nil {
			continue
		}
		if f.data, err = s.add(ctx, r, func(int) {}); err != nil {
			return fmt.Errorf("%.100s: %w", inside(h.Name), err)
		}
		delete(sparse, n)
	}
	return nil
}

// apply applies a layer. Its whiteouts come first, wherever they stand in it, as they are about the layers below alone.
func (t *tree) apply(ctx context.Context, items []item) error {
	for _, it := range items {
		if err := t.remove(it.name); err != nil {
			return err
		}
	}
	for _, it := range items {
		if err := ctx.Err(); err != nil {
			return err
		}
		if strings.HasPrefix(path.Base(it.name), whiteout) {
			continue
		}
		if err := t.place(it); err != nil {
			return fmt.Errorf("%.100s: %w", it.name, err)
		}
	}
	return nil
}

// remove does what a whiteout says. It follows no symbolic link: the directory that it stands in is one of its own
// layer, in whose stead the layers below may have a link.
func (t *tree) remove(name string) error {
	dir, base := path.Split(name)
	hidden, ok := strings.CutPrefix(base, whiteout)
	if !ok || base != whiteoutOpaque && strings.HasPrefix(base, whiteoutMeta) {
		return nil
	}
	if hidden == "" || hidden == "." || hidden == ".." {
		return fmt.Errorf("the whiteout %.100q removes nothing", name)
	}
	at := t.root
	for _, element := range elements(dir) {
		if at = at.children[element]; at == nil {
			return nil
		}
	}
	if base == whiteoutOpaque {
		clear(at.children)
	} else {
		delete(at.children, hidden)
	}
	return nil
}

// place puts an item into the tree. Symbolic links on the way to it are followed, inside the root directory, as
// container engines do.
func (t *tree) place(it item) error {
	at, err := t.walk(it.name, makeDirs)
	if err != nil {
		return err
	}
	if it.file != nil {
		_, err = t.put(*at, it.file)
		return err
	}
	target, err := t.walk(it.link, 0)
	if err != nil {
		return err
	}
	if target == nil || target.node() == nil {
		return fmt.Errorf("it is a hard link to %.100s, which is not there", it.link)
	}
	n := target.node()
	if n.children != nil {
		return fmt.Errorf("it is a hard link to %.100s, which is a directory", it.link)
	}
	if n == at.node() {
		return nil
	}
	_, err = t.put(*at, n.file)
	return err
}

// verify checks a layer's digest.
func verify(ctx context.Context, l layer, data *io.SectionReader, report func(n int)) error {
	h := sha256.New()
	buffer := make([]byte, copyBuffer)
	for offset := int64(0); offset < data.Size(); {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := data.ReadAt(buffer, offset)
		if n == 0 && err != nil {
			return err
		}
		h.Write(buffer[:n])
		offset += int64(n)
		report(n)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != l.diffID.Hex {
		return fmt.Errorf("it is damaged: its digest is sha256:%s", got)
	}
	return nil
}
