package eif

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"

	"github.com/fxamacker/cbor/v2"
	"github.com/veraison/go-cose"
)

// Signer signs images: a key on P-256, P-384 or P-521, and its certificate.
type Signer struct {
	key     crypto.Signer
	alg     cose.Algorithm
	cert    *x509.Certificate
	certPEM []byte
}

// NewSigner returns a Signer. key may live elsewhere; it must be an elliptic-curve key whose Sign returns ASN.1, like
// *ecdsa.PrivateKey. The certificate's PEM text goes into images as it is.
func NewSigner(key crypto.Signer, certificatePEM []byte) (*Signer, error) {
	alg, err := algorithm(key.Public())
	if err != nil {
		return nil, fmt.Errorf("the signing key: %w", err)
	}
	cert, err := ParseCertificate(certificatePEM)
	if err != nil {
		return nil, fmt.Errorf("the signing certificate: %w", err)
	}
	if !key.Public().(*ecdsa.PublicKey).Equal(cert.PublicKey) {
		return nil, fmt.Errorf("the signing certificate is for another key than the one given")
	}
	return &Signer{key: key, alg: alg, cert: cert, certPEM: bytes.Clone(certificatePEM)}, nil
}

// ParsePrivateKey reads an elliptic-curve private key in PEM form, PKCS #8 or SEC 1.
func ParsePrivateKey(text []byte) (crypto.Signer, error) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return nil, fmt.Errorf("there is no unencrypted private key in PEM form")
		}
		switch block.Type {
		case "EC PRIVATE KEY":
			key, err := x509.ParseECPrivateKey(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("the private key cannot be read: %w", err)
			}
			return key, nil
		case "PRIVATE KEY":
			key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("the private key cannot be read: %w", err)
			}
			if key, ok := key.(*ecdsa.PrivateKey); ok {
				return key, nil
			}
			return nil, fmt.Errorf("the private key is not an elliptic-curve key, use P-256, P-384 or P-521")
		case "RSA PRIVATE KEY":
			return nil, fmt.Errorf("the private key is an RSA key, use P-256, P-384 or P-521")
		}
	}
}

// section returns the data of a signature section for an image with this PCR0.
func (s *Signer) section(pcr0 Digest) ([]byte, error) {
	payload, err := pcrPayload(pcr0)
	if err != nil {
		return nil, err
	}
	signer, err := cose.NewSigner(s.alg, s.key)
	if err != nil {
		return nil, err
	}
	headers := cose.Headers{Protected: cose.ProtectedHeader{cose.HeaderLabelAlgorithm: s.alg}}
	sign1, err := cose.Sign1Untagged(rand.Reader, signer, headers, payload, nil)
	if err != nil {
		return nil, fmt.Errorf("signing PCR0: %w", err)
	}
	data, err := cbor.Marshal([]pcrSignature{{Certificate: toOctets(s.certPEM), Signature: toOctets(sign1)}})
	if err == nil && len(data) > MaxSignature {
		err = fmt.Errorf("the signature section would have %d bytes, %d is the limit: the certificate file is too long",
			len(data), MaxSignature)
	}
	return data, err
}
