package inspect

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"

	"github.com/nesim/nesim/eif"
)

// Content is what is in an image.
type Content struct {
	Version  uint16
	Arch     eif.Arch
	Sections []SectionInfo
	Kernel   Kernel
	Problem  string `json:",omitempty"` // why the kernel cannot run here, if so
	Cmdline  string
	Metadata json.RawMessage `json:",omitempty"`
	Ramdisks []Ramdisk
}

// SectionInfo reports where a section is.
type SectionInfo struct {
	Kind   string
	Offset int64 // of its data, in the file
	Size   int64
}

// Ramdisk is what is in a ramdisk.
type Ramdisk struct {
	Compression string `json:",omitempty"`
	Problem     string `json:",omitempty"` // why it could not be read further, if so
	Files       []File
}

// Describe reads all of an image but the files' contents. What is wrong inside of a section is told in the Content; an
// error is ctx's or the reader's.
func Describe(ctx context.Context, image *eif.Image) (*Content, error) {
	h, kernel := image.Header(), image.Kernel()
	c := &Content{Version: h.Version, Arch: h.Arch(), Kernel: IdentifyKernel(kernel, kernel.Size())}
	if err := CheckKernel(c.Kernel, c.Arch); err != nil {
		c.Problem = err.Error()
	}
	for _, s := range image.Sections() {
		c.Sections = append(c.Sections, SectionInfo{s.Kind.String(), s.Offset, s.Size})
	}
	var err error
	if c.Cmdline, err = image.Cmdline(); err != nil {
		return nil, err
	}
	metadata, err := image.Metadata()
	if err != nil {
		return nil, err
	}
	if json.Valid(metadata) {
		c.Metadata = metadata
	}
	for _, r := range image.Ramdisks() {
		disk := Ramdisk{Files: []File{}}
		disk.Compression, err = Walk(ctx, r, func(f *File, _ io.Reader) error {
			disk.Files = append(disk.Files, *f)
			return nil
		})
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			disk.Problem = err.Error()
		}
		c.Ramdisks = append(c.Ramdisks, disk)
	}
	return c, nil
}

// LsMode returns the mode as ls(1) writes it.
func (f File) LsMode() string {
	kind := "-"
	switch f.Mode.Type() {
	case fs.ModeDir:
		kind = "d"
	case fs.ModeSymlink:
		kind = "l"
	case fs.ModeDevice:
		kind = "b"
	case fs.ModeDevice | fs.ModeCharDevice:
		kind = "c"
	case fs.ModeNamedPipe:
		kind = "p"
	case fs.ModeSocket:
		kind = "s"
	}
	mode := []byte(kind + f.Mode.Perm().String()[1:])
	for _, special := range []struct {
		bit    fs.FileMode
		at     int
		letter byte
	}{{fs.ModeSetuid, 3, 's'}, {fs.ModeSetgid, 6, 's'}, {fs.ModeSticky, 9, 't'}} {
		switch {
		case f.Mode&special.bit == 0:
		case mode[special.at] == 'x':
			mode[special.at] = special.letter
		default:
			mode[special.at] = special.letter - 'a' + 'A'
		}
	}
	return string(mode)
}

// MarshalJSON returns a file with LsMode, and without what it has not.
func (f File) MarshalJSON() ([]byte, error) {
	device := ""
	if f.Major != 0 || f.Minor != 0 {
		device = fmt.Sprintf("%d:%d", f.Major, f.Minor)
	}
	return json.Marshal(struct {
		Name, Mode string
		UID, GID   uint32
		Size       int64
		Links      uint32
		Target     string `json:",omitempty"`
		Device     string `json:",omitempty"`
	}{f.Name, f.LsMode(), f.UID, f.GID, f.Size, f.Links, f.Target, device})
}
