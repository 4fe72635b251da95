package stage

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"

	"github.com/nesim/nesim/eif"
)

// Signature says how an image is signed: with a key made for it, whose certificate signs itself.
type Signature string

// The signatures. The zero value is none.
const (
	SignatureValid   Signature = "valid"
	SignatureExpired Signature = "expired" // the certificate has been out of its dates for a day
	SignatureForged  Signature = "forged"  // another key than the certificate's has signed
)

func (s Signature) signer() (*eif.Signer, error) {
	if s == "" {
		return nil, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, err
	}
	from := time.Now().Add(-time.Hour)
	switch s {
	case SignatureValid, SignatureForged:
	case SignatureExpired:
		from = from.Add(-2 * validity)
	default:
		return nil, fmt.Errorf("no signature %q", s)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "nesim scenario"}, NotBefore: from, NotAfter: from.Add(validity),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	by := crypto.Signer(key)
	if s == SignatureForged {
		other, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		if err != nil {
			return nil, err
		}
		by = forger{other, key.Public()}
	}
	return eif.NewSigner(by, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

const validity = 24 * time.Hour // of certificates

// forger signs with a key, and says that it is another.
type forger struct {
	crypto.Signer
	says crypto.PublicKey
}

func (f forger) Public() crypto.PublicKey { return f.says }
