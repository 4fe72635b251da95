package eif

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"hash/crc32"
	"math/big"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// part is a section of a file made by hand.
type part struct {
	kind SectionKind
	data []byte
}

func simple() []part {
	return []part{
		{SectionKernel, []byte("kernel")}, {SectionCmdline, []byte("panic=1")}, {SectionMetadata, []byte("{}")},
		{SectionRamdisk, []byte("init")}, {SectionRamdisk, []byte("app")},
	}
}

// assemble writes a file in the plainest way. edit may spoil the header before the CRC is computed.
func assemble(parts []part, edit func(h *Header)) []byte {
	h := Header{Magic: Magic, Version: CurrentVersion, NumSections: uint16(len(parts))}
	var body []byte
	for i, p := range parts {
		if i < MaxSections {
			h.SectionOffsets[i] = uint64(HeaderSize + len(body))
			h.SectionSizes[i] = uint64(len(p.data))
		}
		body = append(body, sectionHeader{Kind: p.kind, Size: uint64(len(p.data))}.bytes()...)
		body = append(body, p.data...)
	}
	if edit != nil {
		edit(&h)
	}
	h.CRC32 = crc32.ChecksumIEEE(append(h.bytes()[:HeaderSize-crcSize], body...))
	return append(h.bytes(), body...)
}

func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)*seed + byte(i>>8) + byte(i>>16)
	}
	return b
}

func ecKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	require.NoError(t, err)
	return key
}

func certificate(t testing.TB, key crypto.Signer, from, to time.Time) []byte {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: from, NotAfter: to,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func signer(t testing.TB, key crypto.Signer) *Signer {
	now := time.Now()
	s, err := NewSigner(key, certificate(t, key, now.Add(-time.Hour), now.Add(time.Hour)))
	require.NoError(t, err)
	return s
}

func openErr(b []byte) error {
	_, err := Open(bytes.NewReader(b), int64(len(b)))
	return err
}

// noLeak checks at the test's end that no goroutine has been left behind.
func noLeak(t testing.TB) {
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		for end := time.Now().Add(time.Minute); runtime.NumGoroutine() > before; runtime.Gosched() {
			require.True(t, time.Now().Before(end), "goroutines are left")
		}
	})
}
