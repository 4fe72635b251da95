package attest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/veraison/go-cose"
)

// Fingerprint is the SHA-256 of a certificate in DER. Documents bring their root
// along, so this is all that must be known of one to trust it.
type Fingerprint [sha256.Size]byte

// AWSRoot is the root of real enclaves in the commercial AWS partitions, as the AWS
// Nitro Enclaves User Guide ("Verifying the root of trust") gives it.
var AWSRoot = Fingerprint{
	0x64, 0x1a, 0x03, 0x21, 0xa3, 0xe2, 0x44, 0xef, 0xe4, 0x56, 0x46, 0x31, 0x95, 0xd6, 0x06, 0x31,
	0x7e, 0xd7, 0xcd, 0xcc, 0x3c, 0x17, 0x56, 0xe0, 0x98, 0x93, 0xf3, 0xc6, 0x8f, 0x79, 0xbb, 0x5b,
}

// FingerprintOf returns the fingerprint of a certificate.
func FingerprintOf(c *x509.Certificate) Fingerprint { return sha256.Sum256(c.Raw) }

// String returns the fingerprint in hex.
func (f Fingerprint) String() string { return hex.EncodeToString(f[:]) }

// Expect is what Verify holds a document against.
type Expect struct {
	Roots []Fingerprint     // trusted; at least one
	At    time.Time         // the time at which certificates must be valid; zero is now
	PCRs  map[uint64][]byte // values that must be there and the same
	Nonce []byte            // nil is any, and none
}

// Verify reads a signed document and checks it by all of the specification's rules.
// The error wraps the rule that is broken.
func Verify(signed []byte, want Expect) (*Document, error) {
	signed, d, err := decode(signed)
	if err != nil {
		return nil, err
	}
	chain, err := d.Chain()
	if err != nil {
		return nil, err
	}
	if err := checkSignature(signed, chain[len(chain)-1]); err != nil {
		return nil, err
	}
	if err := want.checkChain(chain); err != nil {
		return nil, err
	}
	if err := want.checkContent(d); err != nil {
		return nil, err
	}
	return d, nil
}

// Chain parses the certificates: the bundle's, root first, and the signing one last. It
// trusts none of them. The error wraps ErrCertificate.
func (d *Document) Chain() ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	for i, der := range append(slices.Clip(d.CABundle), d.Certificate) {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, refuse(ErrCertificate, "number %d of the chain: %v", i, err)
		}
		chain = append(chain, c)
	}
	return chain, nil
}

func checkSignature(signed []byte, target *x509.Certificate) error {
	key, ok := target.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P384() {
		return ErrKeyType
	}
	var m cose.UntaggedSign1Message
	if err := m.UnmarshalCBOR(signed); err != nil {
		return refuse(ErrNotCOSE, "%v", err)
	}
	verifier, err := cose.NewVerifier(cose.AlgorithmES384, key)
	if err != nil {
		return refuse(ErrKeyType, "%v", err)
	}
	if err := m.Verify(nil, verifier); err != nil {
		return ErrSignature
	}
	return nil
}

// checkChain applies the rules of sections 3.2.3 and 3.2.4 to a chain with the root
// first and the target last.
func (want *Expect) checkChain(chain []*x509.Certificate) error {
	if root := FingerprintOf(chain[0]); !slices.Contains(want.Roots, root) {
		return refuse(ErrRoot, "it is %s with SHA-256 %v", name(chain[0]), root)
	}
	at := want.At
	if at.IsZero() {
		at = time.Now()
	}
	last := len(chain) - 1
	for i, c := range chain {
		if err := checkCertificate(c, at); err != nil {
			return err
		}
		if i == last {
			return checkTarget(c)
		}
		if err := checkAuthority(c, last-i-1); err != nil {
			return err
		}
		if err := chain[i+1].CheckSignatureFrom(c); err != nil || string(chain[i+1].RawIssuer) != string(c.RawSubject) {
			return refuse(ErrChain, "%s by %s", name(chain[i+1]), name(c))
		}
	}
	return nil
}

func checkCertificate(c *x509.Certificate, at time.Time) error {
	switch {
	case at.Before(c.NotBefore):
		return refuse(ErrNotYetValid, "%s from %s", name(c), c.NotBefore.Format(time.RFC3339))
	case at.After(c.NotAfter):
		return refuse(ErrExpired, "%s on %s", name(c), c.NotAfter.Format(time.RFC3339))
	case len(c.UnhandledCriticalExtensions) > 0:
		return refuse(ErrCriticalExtension, "%s: %v", name(c), c.UnhandledCriticalExtensions[0])
	}
	return nil
}

// checkAuthority checks a CA with so many CAs between it and the target.
func checkAuthority(c *x509.Certificate, below int) error {
	switch {
	case !c.BasicConstraintsValid || !c.IsCA:
		return refuse(ErrBasicConstraints, "%s", name(c))
	case (c.MaxPathLen > 0 || c.MaxPathLenZero) && below > c.MaxPathLen:
		return refuse(ErrPathLen, "%s allows %d below it, there are %d", name(c), c.MaxPathLen, below)
	case c.KeyUsage&x509.KeyUsageCertSign == 0:
		return refuse(ErrKeyCertSign, "%s", name(c))
	}
	return nil
}

func checkTarget(c *x509.Certificate) error {
	switch {
	case c.IsCA || c.MaxPathLen > 0 || c.MaxPathLenZero:
		return refuse(ErrTargetPathLen, "%s", name(c))
	case c.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return refuse(ErrDigitalSignature, "%s", name(c))
	}
	return nil
}

func (want *Expect) checkContent(d *Document) error {
	for i, pcr := range want.PCRs {
		if got, ok := d.PCRs[i]; !ok {
			return refuse(ErrPCRMismatch, "PCR%d is not in the document", i)
		} else if subtle.ConstantTimeCompare(got, pcr) == 0 {
			return refuse(ErrPCRMismatch, "PCR%d is %x", i, got)
		}
	}
	if want.Nonce != nil && subtle.ConstantTimeCompare(d.Nonce, want.Nonce) == 0 {
		return refuse(ErrNonceMismatch, "it is %x", d.Nonce)
	}
	return nil
}

// name is a certificate's for people.
func name(c *x509.Certificate) string { return fmt.Sprintf("%.100q", c.Subject.CommonName) }
