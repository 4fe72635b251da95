package pki

import (
	"crypto"
	"crypto/x509/pkix"
	"encoding/asn1"
)

// Credential is what signs attestation documents. It is never changed.
type Credential struct {
	Certificate []byte   // DER
	CABundle    [][]byte // DER, root first
	Key         crypto.Signer
}

// leafUsage is the key usage of an enclave's certificate (RFC 5280, section 4.2.1.3),
// a BIT STRING of digitalSignature and nonRepudiation. AWS does not mark it critical,
// crypto/x509 always would.
var leafUsage = pkix.Extension{
	Id:    asn1.ObjectIdentifier{2, 5, 29, 15},
	Value: []byte{asn1.TagBitString, 2, 6, 0xc0},
}
