package eif

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
)

// What Measure finds wrong with a well-formed image, wrapped by its error.
var (
	ErrCRC       = errors.New("the EIF is damaged")
	ErrSignature = errors.New("the EIF's signature is not valid")
)

// Report is what one pass over an image finds out.
type Report struct {
	Measurements Measurements
	CRC32        uint32     // as computed, to be compared with the header's
	CRCErr       error      // nil, or wraps ErrCRC
	Signature    *Signature // nil where the image has none, or none that can be read
	SignatureErr error      // nil, or wraps ErrSignature; says nothing about the certificate's dates
}

// Err returns the first thing that is wrong with the image, or nil.
func (r *Report) Err() error { return cmp.Or(r.CRCErr, r.SignatureErr) }

// Measure reads the image once, checks its CRC and its signature, and returns its PCRs. The error wraps ErrCRC or
// ErrSignature, ctx's error, or the reader's. It does not look at the certificate's dates: Signature.CheckValidity
// does.
func (img *Image) Measure(ctx context.Context) (Measurements, error) {
	r, err := img.Check(ctx)
	if err != nil {
		return Measurements{}, err
	}
	if err := r.Err(); err != nil {
		return Measurements{}, err
	}
	return r.Measurements, nil
}

// Check is Measure for those who want to know all about an image, be it valid or not. The error is ctx's or the
// reader's.
func (img *Image) Check(ctx context.Context) (*Report, error) {
	d := newDigester(img.size)
	defer d.stop()
	var signature *bytes.Buffer
	for i, s := range img.sections {
		var sink func([]byte) error
		if s.Kind == SectionSignature {
			signature = new(bytes.Buffer)
			sink = func(p []byte) error { signature.Write(p); return nil }
		}
		n, err := d.feed(ctx, s.Kind, img.Data(s), sink)
		if err == nil && n != s.Size {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, fmt.Errorf("reading EIF section %d (%v): %w", i, s.Kind, err)
		}
	}
	d.stop()

	r := &Report{Measurements: Measurements{PCR0: d.pcr0, PCR1: d.pcr1, PCR2: d.pcr2}}
	var err error
	if r.CRC32, err = img.checkCRC(ctx, d.crcs[:]); err != nil && !errors.Is(err, ErrCRC) {
		return nil, err
	}
	r.CRCErr = err
	if signature != nil {
		r.checkSignature(signature.Bytes())
	}
	return r, nil
}

func (r *Report) checkSignature(section []byte) {
	s, err := ParseSignature(section)
	if err != nil {
		r.SignatureErr = err
		return
	}
	pcr8 := s.PCR8()
	r.Signature, r.Measurements.PCR8 = s, &pcr8
	r.SignatureErr = s.Verify(r.Measurements.PCR0)
}
