package eif

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
)

// Defaults of eif_build for fields of the header that nobody uses.
const (
	defaultMemory = 1 << 30
	defaultCPUs   = 2
)

// BuildSpec is what goes into an image.
type BuildSpec struct {
	Arch     Arch        // ArchX86_64 where empty
	Kernel   io.Reader   // read to its end
	Cmdline  string      // at most MaxCmdline bytes
	Ramdisks []io.Reader // each read to its end, in turn; at least one
	Metadata []byte      // JSON, usually from Metadata.Encode
	Signer   *Signer     // nil for an unsigned image
}

// Build writes an image to w, which must be empty, and returns its measurements. For the same inputs it writes the same
// bytes as eif_build, but for the randomness in a signature. Each input is read once, and nothing is held in memory
// but a few buffers. On an error w is left with an incomplete image, which Open refuses.
func Build(ctx context.Context, w io.WriterAt, spec BuildSpec) (Measurements, error) {
	h, err := spec.check()
	if err != nil {
		return Measurements{}, err
	}
	b := &builder{ctx: ctx, w: w, header: h, end: HeaderSize, d: newDigester(chunkSize)}
	defer b.d.stop()
	if err := b.data(&spec); err != nil {
		return Measurements{}, err
	}
	b.d.stop()
	m := Measurements{PCR0: b.d.pcr0, PCR1: b.d.pcr1, PCR2: b.d.pcr2}
	if spec.Signer != nil {
		if err := b.signature(spec.Signer, m.PCR0); err != nil {
			return Measurements{}, err
		}
		certified := CertificatePCR(spec.Signer.cert)
		m.PCR8 = &certified
	}
	return m, b.headers()
}

// check refuses what could not be opened or booted again, and returns the header without its table.
func (spec *BuildSpec) check() (Header, error) {
	flags, err := spec.Arch.flags()
	if err != nil {
		return Header{}, err
	}
	n := 3 + len(spec.Ramdisks) // kernel, command line, metadata
	if spec.Signer != nil {
		n++
	}
	switch {
	case spec.Kernel == nil:
		return Header{}, fmt.Errorf("an EIF needs a kernel")
	case len(spec.Ramdisks) == 0:
		return Header{}, fmt.Errorf("an EIF needs a ramdisk")
	case n > MaxSections:
		return Header{}, fmt.Errorf("%d ramdisks are too many, an EIF has at most %d sections", len(spec.Ramdisks), MaxSections)
	case len(spec.Cmdline) > MaxCmdline:
		return Header{}, fmt.Errorf("the kernel command line has %d bytes, Linux takes at most %d", len(spec.Cmdline), MaxCmdline)
	case strings.ContainsRune(spec.Cmdline, 0):
		return Header{}, fmt.Errorf("the kernel command line has a zero byte in it")
	case len(spec.Metadata) > MaxMetadata:
		return Header{}, fmt.Errorf("the metadata has %d bytes, %d is the limit", len(spec.Metadata), MaxMetadata)
	}
	return Header{
		Magic:         Magic,
		Version:       CurrentVersion,
		Flags:         flags,
		DefaultMemory: defaultMemory,
		DefaultCPUs:   defaultCPUs,
	}, nil
}

// builder writes sections one after the other and, when all sizes and CRCs are known, the headers.
type builder struct {
	ctx      context.Context
	w        io.WriterAt
	d        *digester
	header   Header
	sections []Section
	end      int64
}

// data writes the sections that come from the spec, in eif_build's order.
func (b *builder) data(spec *BuildSpec) error {
	if err := b.section(SectionKernel, spec.Kernel); err != nil {
		return err
	}
	if b.sections[0].Size == 0 {
		return fmt.Errorf("the kernel is empty")
	}
	if err := b.section(SectionCmdline, strings.NewReader(spec.Cmdline)); err != nil {
		return err
	}
	if err := b.section(SectionMetadata, bytes.NewReader(spec.Metadata)); err != nil {
		return err
	}
	for _, r := range spec.Ramdisks {
		if err := b.section(SectionRamdisk, r); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) section(k SectionKind, r io.Reader) error {
	s := Section{Kind: k, Offset: b.end + SectionHeaderSize}
	off := s.Offset
	n, err := b.d.feed(b.ctx, k, r, func(p []byte) error {
		_, err := b.w.WriteAt(p, off)
		off += int64(len(p))
		return err
	})
	if err != nil {
		return fmt.Errorf("writing the EIF's %v: %w", k, err)
	}
	s.Size = n
	b.add(s)
	return nil
}

// signature writes the signature section, which comes last and is not measured.
func (b *builder) signature(signer *Signer, pcr0 Digest) error {
	data, err := signer.section(pcr0)
	if err != nil {
		return err
	}
	s := Section{Kind: SectionSignature, Offset: b.end + SectionHeaderSize, Size: int64(len(data))}
	if _, err := b.w.WriteAt(data, s.Offset); err != nil {
		return fmt.Errorf("writing the EIF's signature: %w", err)
	}
	b.d.crcs[len(b.sections)] = crc32.ChecksumIEEE(data)
	b.add(s)
	return nil
}

func (b *builder) add(s Section) {
	i := len(b.sections)
	b.header.SectionOffsets[i] = uint64(b.end)
	b.header.SectionSizes[i] = uint64(s.Size)
	b.header.NumSections++
	b.sections = append(b.sections, s)
	b.end = s.Offset + s.Size
}

// headers writes the sections' headers and then, as the last thing, the file's.
func (b *builder) headers() error {
	for i, s := range b.sections {
		if _, err := b.w.WriteAt(s.header().bytes(), int64(b.header.SectionOffsets[i])); err != nil {
			return fmt.Errorf("writing the header of EIF section %d: %w", i, err)
		}
	}
	b.header.CRC32 = fileCRC(&b.header, b.sections, b.d.crcs[:])
	if _, err := b.w.WriteAt(b.header.bytes(), 0); err != nil {
		return fmt.Errorf("writing the EIF header: %w", err)
	}
	return nil
}
