package eif

import (
	"crypto/elliptic"
	"testing"

	"github.com/stretchr/testify/require"
)

func resign(t *testing.T, b []byte, s *Signer) ([]byte, Measurements) {
	var w file
	m, err := open(t, b).Resign(t.Context(), &w, s)
	require.NoError(t, err)
	return w.b, m
}

func TestSigningAddsASignatureAndChangesNothingElse(t *testing.T) {
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		s := signer(t, ecKey(t, curve))
		plain, want := build(t, nil)
		signed, m := resign(t, plain, s)
		got, err := open(t, signed).Measure(t.Context())
		require.NoError(t, err)
		require.True(t, m.Equal(got))
		require.Equal(t, CertificatePCR(s.cert), *got.PCR8)
		got.PCR8 = nil
		require.True(t, want.Equal(got))
		require.Equal(t, plain[HeaderSize:], signed[HeaderSize:len(plain)])
	}
}

func TestSigningAgainReplacesTheSignature(t *testing.T) {
	first, second := signer(t, ecKey(t, elliptic.P256())), signer(t, ecKey(t, elliptic.P521()))
	once, _ := build(t, first)
	twice, m := resign(t, once, second)
	r, err := open(t, twice).Check(t.Context())
	require.NoError(t, err)
	require.NoError(t, r.Err())
	require.True(t, m.Equal(r.Measurements))
	require.Equal(t, second.cert.Raw, r.Signature.Certificate.Raw)
	require.Len(t, open(t, twice).Sections(), len(open(t, once).Sections()))
}

func TestASignatureAmidTheSectionsIsReplacedToo(t *testing.T) {
	signed, _ := build(t, signer(t, ecKey(t, elliptic.P384())))
	old, ok := open(t, signed).find(SectionSignature)
	require.True(t, ok)
	parts := simple()
	parts = append(parts[:3:3], append([]part{{SectionSignature, signed[old.Offset : old.Offset+old.Size]}}, parts[3:]...)...)
	again, m := resign(t, assemble(parts, nil), signer(t, ecKey(t, elliptic.P384())))
	got, err := open(t, again).Measure(t.Context())
	require.NoError(t, err)
	require.True(t, m.Equal(got))
}

func TestADamagedImageIsNotSigned(t *testing.T) {
	b, _ := build(t, signer(t, ecKey(t, elliptic.P384())))
	b[len(b)-1] ^= 1 // in the signature that goes
	var w file
	_, err := open(t, b).Resign(t.Context(), &w, signer(t, ecKey(t, elliptic.P384())))
	require.ErrorIs(t, err, ErrCRC)
	require.Error(t, openErr(w.b))
}

func TestSignedImagesOfAWSsToolsAreSignedAgain(t *testing.T) {
	s := signer(t, ecKey(t, elliptic.P384()))
	for _, name := range goldens {
		b, m := resign(t, golden(t, name+".eif"), s)
		got, err := open(t, b).Measure(t.Context())
		require.NoError(t, err, name)
		require.True(t, m.Equal(got), name)
	}
}
