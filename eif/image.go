package eif

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Image is an EIF whose headers have been read and found consistent.
type Image struct {
	r        io.ReaderAt
	header   Header
	sections []Section
	size     int64
}

// Open reads and checks the headers of the EIF that begins r and ends somewhere in its first limit bytes: those of a
// file, or of an enclave's memory. Size reports where it ends. It does not check the CRC, nor look into the sections:
// Measure does. The bytes behind r must not change while the Image is used. Errors wrap ErrFormat where the bytes are
// at fault and r's own error where they could not be read.
//
// As the hypervisor does, it goes by the header's table: bytes between sections, and after the last, belong to none.
// AWS's own readers, and so nitro-cli's describe-eif, walk from section to section and refuse them; Stray describes them.
func Open(r io.ReaderAt, limit int64) (*Image, error) {
	if limit < HeaderSize {
		return nil, malformed("%d bytes are too few for its header of %d", max(limit, 0), HeaderSize)
	}
	raw := make([]byte, HeaderSize)
	if err := readAt(r, raw, 0); err != nil {
		return nil, fmt.Errorf("reading the EIF header: %w", err)
	}
	h, err := parseHeader(raw)
	if err != nil {
		return nil, err
	}
	img := &Image{r: r, header: h, size: HeaderSize}
	for i := range int(h.NumSections) {
		s, err := img.nextSection(i, limit)
		if err != nil {
			return nil, err
		}
		img.sections = append(img.sections, s)
		img.size = s.Offset + s.Size
	}
	if err := img.checkKinds(); err != nil {
		return nil, err
	}
	return img, nil
}

// nextSection reads the header of section i, which the header's table has after the one before it: the specification
// wants the table in the file's order.
func (img *Image) nextSection(i int, limit int64) (Section, error) {
	off := img.header.SectionOffsets[i]
	if off < uint64(img.size) {
		return Section{}, malformed("section %d begins at %d and overlaps what comes before it, up to %d", i, off, img.size)
	}
	if limit < SectionHeaderSize || off > uint64(limit-SectionHeaderSize) {
		return Section{}, malformed("truncated: it ends at %d, and the header of section %d is at %d", limit, i, off)
	}
	start := int64(off)
	raw := make([]byte, SectionHeaderSize)
	if err := readAt(img.r, raw, start); err != nil {
		return Section{}, fmt.Errorf("reading the header of EIF section %d: %w", i, err)
	}
	h, data := parseSectionHeader(raw), start+SectionHeaderSize
	if h.Kind < SectionKernel || h.Kind > SectionMetadata {
		return Section{}, malformed("section %d has the kind %d, only 1 to 5 are known", i, uint16(h.Kind))
	}
	if table := img.header.SectionSizes[i]; h.Size != table {
		err := malformed("section %d (%v) has %d bytes by its own header and %d by the file's", i, h.Kind, h.Size, table)
		if h.Kind == SectionSignature {
			err = fmt.Errorf("%w (nitro-cli sign-eif leaves this when it replaces a signature; sign the unsigned image)", err)
		}
		return Section{}, err
	}
	if max := h.Kind.limit(); max > 0 && h.Size > uint64(max) {
		return Section{}, malformed("section %d (%v) has %d bytes, %d is the limit", i, h.Kind, h.Size, max)
	}
	if left := limit - data; h.Size > uint64(left) {
		return Section{}, malformed("truncated: section %d (%v) has %d bytes, only %d are there", i, h.Kind, h.Size, left)
	}
	return Section{Kind: h.Kind, Flags: h.Flags, Offset: data, Size: int64(h.Size)}, nil
}

// checkKinds checks that each kind of section is there as often as it must and may be.
func (img *Image) checkKinds() error {
	var count [SectionMetadata + 1]int
	for i, s := range img.sections {
		count[s.Kind]++
		if count[s.Kind] > 1 && s.Kind != SectionRamdisk {
			return malformed("section %d is a second %v, only one may be there", i, s.Kind)
		}
		if s.Kind == SectionRamdisk && count[SectionKernel] == 0 {
			return malformed("section %d is a ramdisk before the kernel, they must come after it", i)
		}
		if s.Kind == SectionKernel && s.Size == 0 {
			return malformed("the kernel is empty")
		}
	}
	for _, k := range []SectionKind{SectionKernel, SectionCmdline} {
		if count[k] == 0 {
			return malformed("it has no %v section", k)
		}
	}
	if img.header.Version >= 4 && count[SectionMetadata] == 0 {
		return malformed("it has no metadata section, which version %d must have", img.header.Version)
	}
	return nil
}

// Header returns the file's header.
func (img *Image) Header() Header { return img.header }

// Sections returns the sections in the file's order.
func (img *Image) Sections() []Section { return slices.Clone(img.sections) }

// Size returns where the last section ends: the size of the EIF in bytes.
func (img *Image) Size() int64 { return img.size }

// Stray returns how many bytes between the sections belong to none.
func (img *Image) Stray() (n int64) {
	for _, g := range img.gaps() {
		n += g.size
	}
	return n
}

// gap is a piece of the file that belongs to no section.
type gap struct{ offset, size int64 }

// gaps returns what lies before each section, of size 0 where that begins right after the one before it.
func (img *Image) gaps() []gap {
	gaps := make([]gap, 0, len(img.sections))
	end := int64(HeaderSize)
	for _, s := range img.sections {
		gaps = append(gaps, gap{end, s.Offset - SectionHeaderSize - end})
		end = s.Offset + s.Size
	}
	return gaps
}

// Data returns a reader of a section's data.
func (img *Image) Data(s Section) *io.SectionReader {
	return io.NewSectionReader(img.r, s.Offset, s.Size)
}

// Kernel returns a reader of the kernel: for x86_64 usually a bzImage.
func (img *Image) Kernel() *io.SectionReader {
	s, _ := img.find(SectionKernel)
	return img.Data(s)
}

// Cmdline returns the kernel's command line.
func (img *Image) Cmdline() (string, error) {
	b, err := img.small(SectionCmdline)
	if err != nil {
		return "", err
	}
	if bytes.IndexByte(b, 0) >= 0 {
		return "", malformed("the command line has a zero byte in it, at which Linux would end it")
	}
	return string(b), nil
}

// Ramdisks returns a reader of each ramdisk. Linux is given them one right after the other as its initramfs.
func (img *Image) Ramdisks() []*io.SectionReader {
	var out []*io.SectionReader
	for _, s := range img.sections {
		if s.Kind == SectionRamdisk {
			out = append(out, img.Data(s))
		}
	}
	return out
}

// Metadata returns the metadata's JSON as it lies in the file, or nil where the image has none. ParseMetadata
// understands it.
func (img *Image) Metadata() ([]byte, error) { return img.small(SectionMetadata) }

// Signature returns the signature, unverified, or nil where the image has none.
func (img *Image) Signature() (*Signature, error) {
	b, err := img.small(SectionSignature)
	if b == nil || err != nil {
		return nil, err
	}
	return ParseSignature(b)
}

func (img *Image) find(k SectionKind) (Section, bool) {
	for _, s := range img.sections {
		if s.Kind == k {
			return s, true
		}
	}
	return Section{}, false
}

// small reads the data of the only section of kind k, which has a limit, or returns nil where there is none.
func (img *Image) small(k SectionKind) ([]byte, error) {
	s, ok := img.find(k)
	if !ok {
		return nil, nil
	}
	b := make([]byte, s.Size)
	if err := readAt(img.r, b, s.Offset); err != nil {
		return nil, fmt.Errorf("reading the EIF's %v: %w", k, err)
	}
	return b, nil
}

// readAt fills p. ReaderAt may return io.EOF with the last bytes, and a file may have shrunk since it was sized.
func readAt(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
