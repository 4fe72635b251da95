package eif

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/stretchr/testify/require"
)

func TestSignedImagesVerify(t *testing.T) {
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		t.Run(curve.Params().Name, func(t *testing.T) {
			b, m := build(t, signer(t, ecKey(t, curve)))
			r, err := open(t, b).Check(t.Context())
			require.NoError(t, err)
			require.NoError(t, r.Err())
			require.NotNil(t, m.PCR8)
			require.True(t, m.Equal(r.Measurements))
			require.NoError(t, r.Signature.CheckValidity(time.Now()))
		})
	}
}

func TestASignatureOfAnotherImageIsRefused(t *testing.T) {
	img := open(t, golden(t, "p384.eif"))
	s, ok := img.find(SectionSignature)
	require.True(t, ok)
	parts := append(simple(), part{SectionSignature, readAll(t, img.Data(s))})
	m, err := open(t, assemble(parts, nil)).Measure(t.Context())
	require.ErrorIs(t, err, ErrSignature)
	require.ErrorContains(t, err, "it signs another image")
	require.Zero(t, m)
}

func TestASignatureByAnotherKeyIsRefused(t *testing.T) {
	for _, curve := range []elliptic.Curve{elliptic.P384(), elliptic.P256()} {
		s := signer(t, ecKey(t, elliptic.P384()))
		other := ecKey(t, curve)
		s.certPEM = certificate(t, other, time.Now(), time.Now().Add(time.Hour))
		b, _ := build(t, s)
		_, err := open(t, b).Measure(t.Context())
		require.ErrorIs(t, err, ErrSignature)
		require.ErrorContains(t, err, "not made with the certificate's key")
	}
}

func TestBadSignatureSectionsAreRefused(t *testing.T) {
	good := signer(t, ecKey(t, elliptic.P256()))
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	rsaCert := certificate(t, rsaKey, time.Now(), time.Now())
	section, err := good.section(Digest{})
	require.NoError(t, err)
	var list []pcrSignature
	require.NoError(t, cbor.Unmarshal(section, &list))
	sign1 := list[0].Signature

	encode := func(v any) []byte {
		b, err := cbor.Marshal(v)
		require.NoError(t, err)
		return b
	}
	tests := map[string]struct {
		section []byte
		want    string
	}{
		"nothing":           {nil, "not a CBOR list"},
		"not CBOR":          {[]byte("hello"), "not a CBOR list"},
		"a number":          {encode(1), "not a CBOR list"},
		"no signature":      {encode([]pcrSignature{}), "holds no signature"},
		"an empty one":      {encode([]pcrSignature{{}}), "no certificate in PEM form"},
		"numbers not bytes": {encode([]pcrSignature{{Certificate: octets{256}}}), "256 is not a byte"},
		"byte strings":      {encode([]map[string][]byte{{"signing_certificate": good.certPEM}}), "not a CBOR list"},
		"bytes after it":    {append(bytes.Clone(section), 0), "not a CBOR list"},
		"a certificate of junk": {encode([]pcrSignature{{Certificate: toOctets(pem.EncodeToMemory(
			&pem.Block{Type: "CERTIFICATE", Bytes: []byte("junk")}))}}), "certificate cannot be read"},
		"no COSE_Sign1": {encode([]pcrSignature{{Certificate: toOctets(good.certPEM)}}), "no well-formed COSE_Sign1"},
		"an RSA key":    {encode([]pcrSignature{{toOctets(rsaCert), sign1}}), "not an elliptic-curve key"},
		"deeply nested": {bytes.Repeat([]byte{0x81}, 5000), "not a CBOR list"},
		"a huge array":  {[]byte{0x9b, 0, 0, 0, 1, 0, 0, 0, 0}, "not a CBOR list"},
		"beyond 32 KiB": {make([]byte, MaxSignature+1), "32768 is the limit"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s, err := ParseSignature(tt.section)
			if err == nil {
				err = s.Verify(Digest{})
			}
			require.ErrorIs(t, err, ErrSignature)
			require.ErrorContains(t, err, tt.want)
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

func TestATaggedCOSESign1IsAccepted(t *testing.T) {
	s := signer(t, ecKey(t, elliptic.P384()))
	section, err := s.section(Digest{1})
	require.NoError(t, err)
	var list []pcrSignature
	require.NoError(t, cbor.Unmarshal(section, &list))
	list[0].Signature = append(octets{0xd2}, list[0].Signature...)
	section, err = cbor.Marshal(list)
	require.NoError(t, err)
	parsed, err := ParseSignature(section)
	require.NoError(t, err)
	require.NoError(t, parsed.Verify(Digest{1}))
	require.Error(t, parsed.Verify(Digest{2}))
}

func TestCertificateDatesAreChecked(t *testing.T) {
	key := ecKey(t, elliptic.P256())
	from, to := time.Unix(1e9, 0), time.Unix(2e9, 0)
	s, err := NewSigner(key, certificate(t, key, from, to))
	require.NoError(t, err)
	section, err := s.section(Digest{})
	require.NoError(t, err)
	parsed, err := ParseSignature(section)
	require.NoError(t, err)
	require.ErrorContains(t, parsed.CheckValidity(from.Add(-time.Second)), "not yet valid: it begins on 2001-09-09T01:46:40Z")
	require.NoError(t, parsed.CheckValidity(from))
	require.NoError(t, parsed.CheckValidity(to))
	require.ErrorContains(t, parsed.CheckValidity(to.Add(time.Second)), "has expired: it ended on 2033-05-18T03:33:20Z")
}

func TestSignersRefuseWhatCannotVerify(t *testing.T) {
	p256, p224 := ecKey(t, elliptic.P256()), ecKey(t, elliptic.P224())
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	cert := certificate(t, p256, time.Now(), time.Now())
	tests := map[string]struct {
		key  crypto.Signer
		cert []byte
		want string
	}{
		"RSA":                   {rsaKey, cert, "not an elliptic-curve key"},
		"P-224":                 {p224, cert, "the curve P-224 is not"},
		"another's certificate": {ecKey(t, elliptic.P256()), cert, "for another key"},
		"no certificate":        {p256, []byte("hello"), "no certificate in PEM form"},
	}
	for name, tt := range tests {
		_, err := NewSigner(tt.key, tt.cert)
		require.ErrorContains(t, err, tt.want, name)
	}

	long, err := NewSigner(p256, append(cert, bytes.Repeat([]byte("\n"), MaxSignature)...))
	require.NoError(t, err)
	_, err = long.section(Digest{})
	require.ErrorContains(t, err, "the certificate file is too long")
}

func TestPrivateKeysAreReadInTheirUsualForms(t *testing.T) {
	key := ecKey(t, elliptic.P384())
	sec1, err := x509.MarshalECPrivateKey(key)
	require.NoError(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	rsa8, err := x509.MarshalPKCS8PrivateKey(rsaKey)
	require.NoError(t, err)
	text := func(kind string, b []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}) }

	for _, in := range [][]byte{
		text("EC PRIVATE KEY", sec1),
		text("PRIVATE KEY", pkcs8),
		append(text("EC PARAMETERS", []byte{6, 0}), text("EC PRIVATE KEY", sec1)...), // as openssl ecparam writes it
	} {
		got, err := ParsePrivateKey(in)
		require.NoError(t, err)
		require.True(t, key.Equal(got.(*ecdsa.PrivateKey)))
	}
	for want, in := range map[string][]byte{
		"no unencrypted private key":   []byte("hello"),
		"cannot be read":               text("PRIVATE KEY", []byte("junk")),
		"the private key cannot":       text("EC PRIVATE KEY", []byte("junk")),
		"not an elliptic-curve key":    text("PRIVATE KEY", rsa8),
		"RSA key, use P-256, P-384 or": text("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey)),
	} {
		_, err := ParsePrivateKey(in)
		require.ErrorContains(t, err, want)
	}
}
