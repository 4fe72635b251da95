package eif

import (
	"context"
	"fmt"
	"hash/crc32"
	"io"
)

// Resign writes the image to w with the signer's signature replacing any existing signature, and returns its
// measurements. The signature comes last; all other sections keep their bytes and their order, so that PCR0, 1 and 2 stay as they
// are; bytes that belong to no section are left out. The image is read once. One whose CRC is wrong is not signed: the error wraps ErrCRC. On an error w is left with
// an incomplete image, which Open refuses.
func (img *Image) Resign(ctx context.Context, w io.WriterAt, signer *Signer) (Measurements, error) {
	b := &builder{ctx: ctx, w: w, d: newDigester(img.size), header: img.header, end: HeaderSize}
	defer b.d.stop()
	b.header.NumSections = 0
	b.header.SectionOffsets, b.header.SectionSizes = [MaxSections]uint64{}, [MaxSections]uint64{}
	if err := b.copySections(img); err != nil {
		return Measurements{}, err
	}
	b.d.stop()
	if err := img.checkCopied(ctx, b.d.crcs[:]); err != nil {
		return Measurements{}, err
	}
	m := Measurements{PCR0: b.d.pcr0, PCR1: b.d.pcr1, PCR2: b.d.pcr2}
	if err := b.signature(signer, m.PCR0); err != nil {
		return Measurements{}, err
	}
	certified := CertificatePCR(signer.cert)
	m.PCR8 = &certified
	return m, b.headers()
}

// copySections copies all but the signature.
func (b *builder) copySections(img *Image) error {
	for _, s := range img.sections {
		if s.Kind == SectionSignature {
			continue
		}
		if len(b.sections) == MaxSections-1 {
			return fmt.Errorf("the image has %d sections, and so no room for a signature", MaxSections)
		}
		if err := b.section(s.Kind, img.Data(s)); err != nil {
			return err
		}
		last := &b.sections[len(b.sections)-1]
		if last.Flags = s.Flags; last.Size != s.Size {
			return fmt.Errorf("reading the EIF's %v: %w", s.Kind, io.ErrUnexpectedEOF)
		}
	}
	return nil
}

// checkCopied checks the CRC of an image, given those of its sections but the signature.
func (img *Image) checkCopied(ctx context.Context, copied []uint32) error {
	var crcs [MaxSections]uint32
	for i, s := range img.sections {
		if s.Kind != SectionSignature {
			crcs[i], copied = copied[0], copied[1:]
			continue
		}
		old, err := img.small(SectionSignature)
		if err != nil {
			return err
		}
		crcs[i] = crc32.ChecksumIEEE(old)
	}
	_, err := img.checkCRC(ctx, crcs[:])
	return err
}
