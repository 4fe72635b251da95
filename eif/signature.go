package eif

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha512"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/veraison/go-cose"
)

// The signature section is a CBOR array of these maps, of which only the first counts: the specification's
// "EifSectionSignature". AWS's tools write byte strings as arrays of numbers, and read nothing else.
type pcrSignature struct {
	Certificate octets `cbor:"signing_certificate"` // PEM
	Signature   octets `cbor:"signature"`           // COSE_Sign1 over a pcrInfo
}

// pcrInfo is what is signed.
type pcrInfo struct {
	Index int32  `cbor:"register_index"`
	Value octets `cbor:"register_value"`
}

// octets is a string of bytes that CBOR carries as an array of numbers.
type octets []uint16

func toOctets(b []byte) octets {
	o := make(octets, len(b))
	for i, c := range b {
		o[i] = uint16(c)
	}
	return o
}

func (o octets) bytes() ([]byte, error) {
	b := make([]byte, len(o))
	for i, c := range o {
		if c > 0xff {
			return nil, fmt.Errorf("%d is not a byte", c)
		}
		b[i] = byte(c)
	}
	return b, nil
}

// cborIn bounds what a section of MaxSignature bytes can make the decoder do.
var cborIn = func() cbor.DecMode {
	mode, err := cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		MaxArrayElements: MaxSignature,
		MaxMapPairs:      16,
		MaxNestedLevels:  8,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return mode
}()

// Signature is an image's signature: a certificate, and PCR0 signed with its key.
type Signature struct {
	Certificate    *x509.Certificate
	CertificatePEM []byte // as it lies in the image

	message cose.UntaggedSign1Message
}

// ParseSignature reads the data of a signature section. The error wraps ErrSignature.
func ParseSignature(section []byte) (*Signature, error) {
	s, err := parseSignature(section)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	return s, nil
}

func parseSignature(section []byte) (*Signature, error) {
	if len(section) > MaxSignature {
		return nil, fmt.Errorf("the section has %d bytes, %d is the limit", len(section), MaxSignature)
	}
	var list []pcrSignature
	if err := cborIn.Unmarshal(section, &list); err != nil {
		return nil, fmt.Errorf("the section is not a CBOR list of signatures")
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("the section holds no signature")
	}
	certPEM, err := list[0].Certificate.bytes()
	if err != nil {
		return nil, fmt.Errorf("the certificate cannot be decoded: %w", err)
	}
	cert, err := ParseCertificate(certPEM)
	if err != nil {
		return nil, err
	}
	sign1, err := list[0].Signature.bytes()
	if err != nil {
		return nil, fmt.Errorf("the COSE_Sign1 cannot be decoded: %w", err)
	}
	s := &Signature{Certificate: cert, CertificatePEM: certPEM}
	sign1 = bytes.TrimPrefix(sign1, []byte{0xd2}) // tag 18, which may be there or not
	if err := s.message.UnmarshalCBOR(sign1); err != nil {
		return nil, fmt.Errorf("it holds no well-formed COSE_Sign1")
	}
	return s, nil
}

// ParseCertificate reads the first certificate of a PEM text.
func ParseCertificate(text []byte) (*x509.Certificate, error) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return nil, fmt.Errorf("there is no certificate in PEM form")
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("the certificate cannot be read: %w", err)
		}
		return cert, nil
	}
}

// PCR8 returns the measurement of the certificate.
func (s *Signature) PCR8() Digest { return CertificatePCR(s.Certificate) }

// CertificatePCR returns the value of PCR8 for images that are signed with the certificate.
func CertificatePCR(cert *x509.Certificate) Digest {
	content := sha512.Sum384(cert.Raw)
	return extend(content[:])
}

// Verify checks that the certificate's key has signed pcr0. The error wraps ErrSignature.
func (s *Signature) Verify(pcr0 Digest) error {
	if err := s.verify(pcr0); err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	return nil
}

func (s *Signature) verify(pcr0 Digest) error {
	alg, err := algorithm(s.Certificate.PublicKey)
	if err != nil {
		return fmt.Errorf("the certificate's key: %w", err)
	}
	verifier, err := cose.NewVerifier(alg, s.Certificate.PublicKey)
	if err != nil {
		return fmt.Errorf("the certificate's key: %w", err)
	}
	if err := s.message.Verify(nil, verifier); err != nil {
		return fmt.Errorf("it was not made with the certificate's key: %w", err)
	}
	want, err := pcrPayload(pcr0)
	if err != nil {
		return err
	}
	if !bytes.Equal(s.message.Payload, want) {
		return fmt.Errorf("it signs another image, not the one with PCR0 %v", pcr0)
	}
	return nil
}

// CheckValidity returns an error where now is not within the certificate's dates.
func (s *Signature) CheckValidity(now time.Time) error {
	return CheckValidity(s.Certificate, now)
}

// CheckValidity returns an error where now is not within the certificate's dates.
func CheckValidity(c *x509.Certificate, now time.Time) error {
	switch {
	case now.Before(c.NotBefore):
		return fmt.Errorf("the signing certificate is not yet valid: it begins on %s", c.NotBefore.UTC().Format(time.RFC3339))
	case now.After(c.NotAfter):
		return fmt.Errorf("the signing certificate has expired: it ended on %s", c.NotAfter.UTC().Format(time.RFC3339))
	}
	return nil
}

// pcrPayload returns the signed bytes for PCR0. They are compared as bytes, as AWS's tools do.
func pcrPayload(pcr0 Digest) ([]byte, error) {
	return cbor.Marshal(pcrInfo{Index: 0, Value: toOctets(pcr0[:])})
}

// algorithm returns the one algorithm that COSE recommends for a key's curve (RFC 8152, section 8.1). AWS refuses
// other keys.
func algorithm(public any) (cose.Algorithm, error) {
	key, ok := public.(*ecdsa.PublicKey)
	if !ok {
		return 0, fmt.Errorf("it is not an elliptic-curve key, use P-256, P-384 or P-521")
	}
	switch key.Curve {
	case elliptic.P256():
		return cose.AlgorithmES256, nil
	case elliptic.P384():
		return cose.AlgorithmES384, nil
	case elliptic.P521():
		return cose.AlgorithmES512, nil
	}
	return 0, fmt.Errorf("the curve %s is not P-256, P-384 or P-521", key.Curve.Params().Name)
}
