package eif

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"hash/crc32"
	"testing"
	"time"
)

func FuzzOpen(f *testing.F) {
	for _, name := range goldens {
		f.Add(golden(f, name+".eif"), false)
		f.Add(golden(f, name+".eif"), true)
	}
	f.Add(assemble(simple(), nil), true)
	f.Add(shifted(f, "two.eif", 9, true), true)
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
		if img.Size() > int64(len(b)) || img.Stray() > img.Size() {
			t.Fatalf("size %d of %d bytes, %d of them stray", img.Size(), len(b), img.Stray())
		}
		r, err := img.Check(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if fixCRC && img.Size() == int64(len(b)) && r.CRCErr != nil {
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

func FuzzPEM(f *testing.F) {
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521(), elliptic.P224()} {
		key := ecKey(f, curve)
		f.Add(certificate(f, key, time.Unix(0, 0), time.Unix(1, 0)))
		sec1, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			f.Fatal(err)
		}
		pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1}))
		f.Add(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
		f.Add(append(pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS"}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1})...))
	}
	f.Add([]byte("-----BEGIN RSA PRIVATE KEY-----\n-----END RSA PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if key, err := ParsePrivateKey(text); err == nil {
			s, err := NewSigner(key, text) // the text may hold both
			if err == nil {
				if _, err := s.section(Digest{1}); err != nil && len(text) < MaxSignature/2 {
					t.Fatal(err)
				}
			}
		}
		if cert, err := ParseCertificate(text); err == nil {
			if CertificatePCR(cert) == (Digest{}) {
				t.Fatal("a certificate measures as zero")
			}
			_ = describeCertificate(cert)
			_ = CheckValidity(cert, time.Unix(0, 0))
		}
	})
}
