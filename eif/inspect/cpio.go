package inspect

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

// Limits of what is read of one ramdisk.
const (
	maxFiles    = 1 << 20
	maxNames    = 256 << 20 // bytes of all names and links
	maxName     = 4096      // PATH_MAX in linux/limits.h, which init/initramfs.c drops longer names by
	maxUnpacked = 64 << 30  // bytes of a compressed ramdisk
)

// File is what a ramdisk says of a name.
type File struct {
	Name         string // as it stands in the archive; may be anything
	Mode         fs.FileMode
	UID, GID     uint32
	Size         int64  // bytes of a regular file here; a hard link's content may stand at another of its names
	Inode, Links uint32 // names of the same number are one file
	Target       string // of a symbolic link
	Major, Minor uint32 // of a device
}

// The newc format of Documentation/driver-api/early-userspace/buffer-format.rst: a header of ASCII, the name, the
// content, the last two padded. 070702 has a checksum, which Linux ignores.
const (
	headerSize = 110
	magicNewc  = "070701"
	magicCRC   = "070702"
	trailer    = "TRAILER!!!"
)

// Walk calls visit for every file of a ramdisk, in the archive's order, with a reader of a regular file's content. A
// ramdisk is, as Linux takes it, any number of cpio archives one behind the other, with zeroes between them, the last
// of which may be compressed. It returns the compression's name, or "". Errors say at which byte.
func Walk(ctx context.Context, r io.Reader, visit func(f *File, content io.Reader) error) (compression string, err error) {
	w := &walker{ctx: ctx, r: bufio.NewReaderSize(r, 256<<10), visit: visit}
	if err = w.archives(); err != errCompressed {
		return "", err
	}
	unpacked, compression, err := decompress(w.r)
	if err != nil {
		return compression, fmt.Errorf("at byte %d: %w", w.at, err)
	}
	defer unpacked.Close()
	inner := &walker{
		ctx: ctx, r: bufio.NewReaderSize(io.LimitReader(unpacked, maxUnpacked), 256<<10), visit: visit, files: w.files, names: w.names,
	}
	err = inner.archives()
	if err == errCompressed {
		err = fmt.Errorf("at unpacked byte %d: no cpio archive begins here", inner.at)
	}
	if err == nil && inner.at == maxUnpacked {
		err = fmt.Errorf("it is %d GiB long when unpacked, or longer", maxUnpacked>>30)
	}
	return compression, err
}

// errCompressed says that what comes next is no cpio archive.
var errCompressed = errors.New("compressed")

// walker walks through archives.
type walker struct {
	ctx          context.Context
	r            *bufio.Reader
	at           int64 // bytes read
	visit        func(f *File, content io.Reader) error
	files, names int
}

// archives reads archives to the end, or to what is none.
func (w *walker) archives() error {
	for {
		c, err := w.r.ReadByte()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("at byte %d: %w", w.at, err)
		case c == 0: // padding
			if w.at++; w.at&0xffff == 0 && w.ctx.Err() != nil {
				return w.ctx.Err()
			}
			continue
		}
		if err := w.r.UnreadByte(); err != nil {
			return err
		}
		if c != '0' || w.at%4 != 0 {
			return errCompressed
		}
		start := w.at
		if err := w.record(); err != nil {
			return fmt.Errorf("at byte %d: %w", start, err)
		}
	}
}

// record reads one file.
func (w *walker) record() error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	f, nameSize, mode, err := w.header()
	if err != nil {
		return err
	}
	name, err := w.text(nameSize)
	if err != nil {
		return fmt.Errorf("its name: %w", err)
	}
	f.Name = strings.TrimSuffix(name, "\x00")
	if f.Name == trailer {
		return w.skip(f.Size)
	}
	if f.Mode, err = fileMode(mode); err != nil {
		return fmt.Errorf("%.100q: %w", f.Name, err)
	}
	if w.files++; w.files > maxFiles {
		return fmt.Errorf("there are more than %d files", maxFiles)
	}
	size := f.Size
	if f.Mode&fs.ModeSymlink != 0 {
		if f.Target, err = w.text(uint32(min(size, maxName))); err != nil {
			return fmt.Errorf("%.100q: its target: %w", f.Name, err)
		}
		size -= int64(len(f.Target))
	}
	if w.names += len(f.Name) + len(f.Target); w.names > maxNames {
		return fmt.Errorf("its names are longer than %d MiB in all", maxNames>>20)
	}
	content := &io.LimitedReader{R: w.r, N: size}
	if !f.Mode.IsRegular() {
		f.Size = 0
		err = w.visit(f, strings.NewReader(""))
	} else {
		err = w.visit(f, content)
	}
	if err != nil {
		return err
	}
	w.at += size - content.N
	return w.skip(content.N)
}

// header reads a header. All its numbers are of 8 hex digits.
func (w *walker) header() (f *File, nameSize, mode uint32, err error) {
	var b [headerSize]byte
	if _, err := io.ReadFull(w.r, b[:]); err != nil {
		return nil, 0, 0, errors.New("the archive is cut off")
	}
	w.at += headerSize
	if m := string(b[:6]); m != magicNewc && m != magicCRC {
		return nil, 0, 0, fmt.Errorf("no cpio header in the newc format: it begins with %q", m)
	}
	var n [13]uint32
	for i := range n {
		var raw [4]byte
		if _, err := hex.Decode(raw[:], b[6+8*i:14+8*i]); err != nil {
			return nil, 0, 0, fmt.Errorf("number %d of its cpio header is %q", i+1, b[6+8*i:14+8*i])
		}
		n[i] = uint32(raw[0])<<24 | uint32(raw[1])<<16 | uint32(raw[2])<<8 | uint32(raw[3])
	}
	f = &File{Inode: n[0], UID: n[2], GID: n[3], Links: n[4], Size: int64(n[6]), Major: n[9], Minor: n[10]}
	if n[11] == 0 || n[11] > maxName {
		return nil, 0, 0, fmt.Errorf("its name is %d bytes long, 1 to %d can be", n[11], maxName)
	}
	return f, n[11], n[1], nil
}

// text reads some bytes, and after a name or a whole content what pads it.
func (w *walker) text(size uint32) (string, error) {
	b := make([]byte, size)
	if _, err := io.ReadFull(w.r, b); err != nil {
		return "", errors.New("the archive is cut off")
	}
	w.at += int64(size)
	return string(b), w.skip(0)
}

// skip skips bytes, and then to the next multiple of 4.
func (w *walker) skip(size int64) error {
	padding := -(w.at + size) & 3
	n, err := io.CopyN(io.Discard, w.r, size+padding)
	w.at += n
	if errors.Is(err, io.EOF) {
		if n < size {
			return errors.New("the archive is cut off")
		}
		return nil // without its last padding
	}
	return err
}

// fileMode turns the mode bits of stat(2) into Go's.
func fileMode(bits uint32) (fs.FileMode, error) {
	mode := fs.FileMode(bits & 0o777)
	for bit, m := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if bits&bit != 0 {
			mode |= m
		}
	}
	switch bits & 0o170000 {
	case 0o100000:
		return mode, nil
	case 0o040000:
		return mode | fs.ModeDir, nil
	case 0o120000:
		return mode | fs.ModeSymlink, nil
	case 0o060000:
		return mode | fs.ModeDevice, nil
	case 0o020000:
		return mode | fs.ModeDevice | fs.ModeCharDevice, nil
	case 0o010000:
		return mode | fs.ModeNamedPipe, nil
	case 0o140000:
		return mode | fs.ModeSocket, nil
	}
	return 0, fmt.Errorf("its mode %#o is of no type of file", bits)
}
