package attest

import (
	"crypto"
	"crypto/rand"
	"fmt"

	"github.com/veraison/go-cose"
)

// Limits of an attestation document in bytes: sections 3.1 and 3.2.2.2 of the specification. That gives user_data and
// nonce 512 bytes, its section 2.2 and the AWS Nitro Enclaves User Guide ("Verifying the root of trust") 1024; the
// hypervisor enforces neither, and signs what fits into one request to the NSM (NSM_REQUEST_MAX_SIZE of
// include/uapi/linux/nsm.h).
const (
	MaxPublicKey   = 1024
	MaxUserData    = 0x1000
	MaxNonce       = 0x1000
	MaxCertificate = 1024
	MaxPayload     = 16384
	MaxSigned      = MaxPayload + 1024 // our own: the payload and what COSE puts around it
)

// MaxPCRs is the number of PCRs of an NSM; indices are below it.
const MaxPCRs = 32

// DigestSHA384 is the only digest that a document may name.
const DigestSHA384 = "SHA384"

// Document is what an attestation document says, in the words and the order of section 2.2.
type Document struct {
	ModuleID    string
	Digest      string
	Timestamp   uint64            // milliseconds since the UNIX epoch
	PCRs        map[uint64][]byte // the locked ones
	Certificate []byte            // DER
	CABundle    [][]byte          // DER, root first
	PublicKey   []byte            // nil if absent, as are the next two
	UserData    []byte
	Nonce       []byte
}

// Sign encodes the document and signs it with the P-384 key of its certificate. The
// result is an untagged COSE_Sign1 structure (RFC 9052, section 4.2), as the Nitro
// hypervisor's are.
func (d *Document) Sign(key crypto.Signer) ([]byte, error) {
	signer, err := cose.NewSigner(cose.AlgorithmES384, key)
	if err != nil {
		return nil, fmt.Errorf("sign the attestation document: %w", err)
	}
	headers := cose.Headers{Protected: cose.ProtectedHeader{cose.HeaderLabelAlgorithm: cose.AlgorithmES384}}
	signed, err := cose.Sign1Untagged(rand.Reader, signer, headers, d.Encode(), nil)
	if err != nil {
		return nil, fmt.Errorf("sign the attestation document: %w", err)
	}
	return signed, nil
}
