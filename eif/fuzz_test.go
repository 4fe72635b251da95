package eif

import (
	"bytes"
	"context"
	"encoding/json"
	"hash/crc32"
	"testing"
)

func FuzzOpen(f *testing.F) {
	for _, name := range goldens {
		f.Add(golden(f, name+".eif"), false)
		f.Add(golden(f, name+".eif"), true)
	}
	f.Add(assemble(simple(), nil), true)
	f.Fuzz(func(t *testing.T, b []byte, fixCRC bool) {
		if fixCRC && len(b) >= HeaderSize {
			b = bytes.Clone(b)
			crc := crc32.ChecksumIEEE(b[:HeaderSize-crcSize])
			crc = crc32.Update(crc, crc32.IEEETable, b[HeaderSize:])
			copy(b[HeaderSize-crcSize:], []byte{byte(crc >> 24), byte(crc >> 16), byte(crc >> 8), byte(crc)})
		}
		img, err := Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		if img.Size() != int64(len(b)) {
			t.Fatalf("size %d of %d bytes", img.Size(), len(b))
		}
		r, err := img.Check(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if fixCRC && r.CRCErr != nil {
			t.Fatal(r.CRCErr)
		}
		var parts []part
		for _, s := range img.Sections() {
			parts = append(parts, part{s.Kind, readAll(t, img.Data(s))})
		}
		want := plainMeasure(parts)
		want.PCR8 = r.Measurements.PCR8
		if !want.Equal(r.Measurements) {
			t.Fatal("measured wrongly")
		}
		if _, err := img.Metadata(); err != nil {
			t.Fatal(err)
		}
		_, _ = img.Cmdline()
		_, _ = img.Signature()
	})
}

func FuzzSignature(f *testing.F) {
	for _, name := range []string{"p256", "p384", "p521"} {
		b, err := open(f, golden(f, name+".eif")).small(SectionSignature)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseSignature(b)
		if err != nil {
			return
		}
		_ = s.PCR8()
		if s.Verify(Digest{}) == nil {
			t.Fatal("the zero PCR0 was never signed")
		}
	})
}

func FuzzMetadata(f *testing.F) {
	for _, name := range goldens {
		b, err := open(f, golden(f, name+".eif")).Metadata()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseMetadata(b)
		if err != nil {
			return
		}
		once, err := m.Encode()
		if err != nil {
			return
		}
		if !json.Valid(once) {
			t.Fatalf("not JSON: %q", once)
		}
		if _, err := ParseMetadata(once); err != nil {
			t.Fatalf("%v: %q", err, once)
		}
	})
}
