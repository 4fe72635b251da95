package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/nesim/nesim/attest"
)

// How long the certificates are valid, as AWS's are. A root of ours is valid for some
// years before it was made, for those who set the clock back.
const (
	rootYears        = 30
	rootYearsBefore  = 5
	regionValidity   = 20*24*time.Hour + time.Hour
	zoneValidity     = 5*24*time.Hour + 18*time.Hour
	instanceValidity = 24 * time.Hour
	// LeafValidity is how long the certificate that signs an enclave's documents is valid.
	LeafValidity = 3 * time.Hour
)

// caUsage is the key usage of root, region and zone; an instance's has keyCertSign alone.
const caUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign | x509.KeyUsageCRLSign

// depth is how many CAs stand between the root and an enclave's certificate.
const depth = 3

// Authority is a root and its key.
type Authority struct {
	*pair
}

// pair is a certificate and its key.
type pair struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// NewAuthority makes a root that is valid now.
func NewAuthority(now time.Time) (*Authority, error) {
	root, err := issue(nil, &x509.Certificate{
		SerialNumber: serial(16),
		RawSubject:   rootName(),
		NotBefore:    now.AddDate(-rootYearsBefore, 0, 0),
		NotAfter:     now.AddDate(rootYears-rootYearsBefore, 0, 0),
		KeyUsage:     caUsage,
		IsCA:         true,
		MaxPathLen:   -1,
	})
	if err != nil {
		return nil, err
	}
	return &Authority{root}, nil
}

// Derive returns a secret of 32 bytes for a purpose, which only who has the authority's private key can know: HKDF
// (RFC 5869) with SHA-256 of that key.
func (a *Authority) Derive(purpose string) ([]byte, error) {
	key, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return nil, fmt.Errorf("derive a secret from the root's key: %w", err)
	}
	return hkdf.Key(sha256.New, key, nil, "nesim "+purpose, sha256.Size)
}

// Root returns the root certificate.
func (a *Authority) Root() *x509.Certificate { return a.cert }

// ParseAuthority reads a root certificate and its key, PKCS #8 or SEC 1, in PEM. Each
// may hold other blocks too, which are passed over.
func ParseAuthority(certPEM, keyPEM []byte) (*Authority, error) {
	der := block(certPEM, "CERTIFICATE")
	if der == nil {
		return nil, errors.New("no certificate in PEM")
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read the certificate: %w", err)
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, err
	}
	switch {
	case !key.PublicKey.Equal(cert.PublicKey):
		return nil, errors.New("the key is not the certificate's")
	case !cert.BasicConstraintsValid || !cert.IsCA || cert.KeyUsage&x509.KeyUsageCertSign == 0:
		return nil, errors.New("the certificate is not a CA's that may sign certificates")
	case (cert.MaxPathLen > 0 || cert.MaxPathLenZero) && cert.MaxPathLen < depth:
		return nil, fmt.Errorf("the certificate's pathLenConstraint is %d, enclaves need %d", cert.MaxPathLen, depth)
	case len(der) > attest.MaxCertificate:
		return nil, errTooLong(der)
	}
	return &Authority{&pair{cert, key}}, nil
}

func parseKey(text []byte) (*ecdsa.PrivateKey, error) {
	var parsed any
	var err error
	if der := block(text, "PRIVATE KEY"); der != nil {
		parsed, err = x509.ParsePKCS8PrivateKey(der)
	} else if der := block(text, "EC PRIVATE KEY"); der != nil {
		parsed, err = x509.ParseECPrivateKey(der)
	} else {
		return nil, errors.New("no unencrypted private key in PEM")
	}
	if err != nil {
		return nil, fmt.Errorf("read the private key: %w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P384() {
		return nil, errors.New("the private key is not of the curve P-384")
	}
	return key, nil
}

// block returns the first block of a type.
func block(text []byte, kind string) []byte {
	for {
		b, rest := pem.Decode(text)
		if b == nil {
			return nil
		}
		if b.Type == kind {
			return b.Bytes
		}
		text = rest
	}
}

// issue makes a key and has parent, or the key itself where there is none, sign its certificate.
func issue(parent *pair, template *x509.Certificate) (*pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	template.BasicConstraintsValid = true
	template.SignatureAlgorithm = x509.ECDSAWithSHA384
	if parent == nil {
		parent = &pair{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent.cert, key.Public(), parent.key)
	if err != nil {
		return nil, fmt.Errorf("issue a certificate: %w", err)
	}
	if len(der) > attest.MaxCertificate {
		return nil, errTooLong(der)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("issue a certificate: %w", err)
	}
	return &pair{cert, key}, nil
}

// errTooLong says that a certificate, which holds its issuer's name, fits into no document.
func errTooLong(der []byte) error {
	return fmt.Errorf("the certificate has %d bytes, attestation documents hold %d; use a root with a shorter name",
		len(der), attest.MaxCertificate)
}

// serial returns a random serial number of n bytes.
func serial(n int) *big.Int {
	b := make([]byte, n)
	rand.Read(b)
	b[0] = b[0]&0x7f | 0x40 // positive in n bytes, and never shorter
	return new(big.Int).SetBytes(b)
}
