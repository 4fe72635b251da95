package kms

import (
	"crypto/rsa"
	"crypto/x509"
	"time"

	"github.com/nesim/nesim/attest"
)

// MaxAge is how old an attestation document may be, and how far ahead of our clock.
const MaxAge = 5 * time.Minute

// Sizes of a recipient's RSA key in bits. Enclaves use 2048.
const (
	minRSA = 2048
	maxRSA = 4096
)

// recipientInfo is the type RecipientInfo of the API.
type recipientInfo struct {
	AttestationDocument    []byte
	KeyEncryptionAlgorithm string
}

// recipient is an enclave that has proved who it is.
type recipient struct {
	document *attest.Document
	key      *rsa.PublicKey
}

// verify checks a request's Recipient. Without one the result is nil.
func (s *Service) verify(info *recipientInfo) (*recipient, error) {
	if info == nil {
		return nil, nil
	}
	switch {
	case info.KeyEncryptionAlgorithm != "RSAES_OAEP_SHA_256":
		return nil, refuse(errValidation, "Recipient.KeyEncryptionAlgorithm must be RSAES_OAEP_SHA_256, not %.40q", info.KeyEncryptionAlgorithm)
	case len(info.AttestationDocument) == 0:
		return nil, refuse(errValidation, "Recipient.AttestationDocument is missing")
	}
	now := s.clock()
	document, err := attest.Verify(info.AttestationDocument, attest.Expect{Roots: s.roots, At: now})
	if err != nil {
		return nil, refuse(errValidation, "the attestation document is not valid: %v", err).because("%v", err)
	}
	if age := now.Sub(document.Time()); age > MaxAge || age < -MaxAge {
		return nil, refuse(errValidation, "the attestation document is of %s, more than %v away from now, %s: make a new one",
			document.Time().Format(time.RFC3339), MaxAge, now.UTC().Format(time.RFC3339)).because("the attestation document is %v old", age)
	}
	key, err := rsaKey(document.PublicKey)
	if err != nil {
		return nil, err
	}
	return &recipient{document, key}, nil
}

// rsaKey reads a SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7) in DER.
func rsaKey(spki []byte) (*rsa.PublicKey, error) {
	if len(spki) == 0 {
		return nil, refuse(errValidation, "the attestation document has no public key")
	}
	parsed, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, refuse(errValidation, "the attestation document's public key is not a SubjectPublicKeyInfo in DER")
	}
	key, ok := parsed.(*rsa.PublicKey)
	if !ok || key.N.BitLen() < minRSA || key.N.BitLen() > maxRSA {
		return nil, refuse(errValidation, "the attestation document's public key is not RSA of %d to %d bits", minRSA, maxRSA)
	}
	return key, nil
}

// plaintext is the part of a response that holds one: in the clear, or for a recipient only.
type plaintext struct {
	Plaintext              []byte `json:",omitempty"`
	CiphertextForRecipient []byte `json:",omitempty"`
}

// hand puts a plaintext into a response.
func (r *recipient) hand(secret []byte) (plaintext, error) {
	if r == nil {
		return plaintext{Plaintext: secret}, nil
	}
	enveloped, err := envelope(secret, r.key)
	if err != nil { // a modulus or exponent that crypto/rsa does not take
		return plaintext{}, refuse(errValidation, "the attestation document's public key: %v", err)
	}
	return plaintext{CiphertextForRecipient: enveloped}, nil
}
