package nsm

import (
	"crypto/rand"
	"fmt"
	"sync"
	"time"

	"github.com/nesim/nesim/attest"
	"github.com/nesim/nesim/attest/pki"
	"github.com/nesim/nesim/eif"
)

// The version that DescribeNSM returns.
const (
	versionMajor = 1
	versionMinor = 0
	versionPatch = 0
)

// randomSize is how many bytes GetRandom returns.
const randomSize = 256

// DefaultRoleARN is an IAM role for a parent instance that should have one.
const DefaultRoleARN = "arn:aws:iam::123456789012:role/nesim"

// Enclave says who the enclave is and signs for it: a *pki.Enclave does.
type Enclave interface {
	ModuleID() string
	InstanceID() string // the parent's
	Now() time.Time
	Credential() (*pki.Credential, error)
}

// Config describes the NSM of one enclave.
type Config struct {
	Enclave      Enclave
	Measurements eif.Measurements // of the image
	Debug        bool             // the enclave was started in debug mode
	RoleARN      string           // of the parent's IAM role; empty if it has none
}

// NSM is the Nitro Secure Module of one enclave.
type NSM struct {
	enclave Enclave

	mu   sync.Mutex
	pcrs bank
}

// New makes the NSM of an enclave that starts.
func New(c Config) *NSM { return &NSM{enclave: c.Enclave, pcrs: newBank(&c)} }

// Description is what DescribeNSM returns, in the API's order.
type Description struct {
	VersionMajor uint16   `cbor:"version_major"`
	VersionMinor uint16   `cbor:"version_minor"`
	VersionPatch uint16   `cbor:"version_patch"`
	ModuleID     string   `cbor:"module_id"`
	MaxPCRs      uint16   `cbor:"max_pcrs"`
	LockedPCRs   []uint16 `cbor:"locked_pcrs"`
	Digest       string   `cbor:"digest"`
}

// DescribeNSM reports what the NSM is and which PCRs are locked.
func (n *NSM) DescribeNSM() Description {
	n.mu.Lock()
	defer n.mu.Unlock()
	return Description{
		VersionMajor: versionMajor, VersionMinor: versionMinor, VersionPatch: versionPatch,
		ModuleID: n.enclave.ModuleID(), MaxPCRs: attest.MaxPCRs, LockedPCRs: n.pcrs.locked(), Digest: attest.DigestSHA384,
	}
}

// DescribePCR returns a PCR's value, and whether it is locked. The error is InvalidIndex.
func (n *NSM) DescribePCR(index uint16) (PCR, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p, err := n.pcrs.at(index)
	if err != nil {
		return PCR{}, err
	}
	return *p, nil
}

// ExtendPCR replaces a PCR's value by the digest of it and data, and returns the new
// one. The error is InvalidIndex or ReadOnlyIndex.
func (n *NSM) ExtendPCR(index uint16, data []byte) (eif.Digest, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p, err := n.pcrs.unlocked(index)
	if err != nil {
		return eif.Digest{}, err
	}
	p.Value = extend(p.Value, data)
	return p.Value, nil
}

// LockPCR makes a PCR read-only. The error is InvalidIndex, or ReadOnlyIndex if it is already.
func (n *NSM) LockPCR(index uint16) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	p, err := n.pcrs.unlocked(index)
	if err == nil {
		p.Locked = true
	}
	return err
}

// LockPCRs makes the PCRs below count read-only, be they so already or not. The error
// is InvalidIndex.
func (n *NSM) LockPCRs(count uint16) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if int(count) > len(n.pcrs) {
		return InvalidIndex
	}
	for i := range n.pcrs[:count] {
		n.pcrs[i].Locked = true
	}
	return nil
}

// Attestation returns a signed attestation document with what the enclave wants in it,
// each nil for nothing. The error is InputTooLarge for a public key of more than
// attest.MaxPublicKey bytes and for fields that no request of MaxRequest bytes can carry,
// InvalidArgument for an empty public key, which no document may have, or wraps InternalError.
func (n *NSM) Attestation(userData, nonce, publicKey []byte) ([]byte, error) {
	switch {
	case len(publicKey) > attest.MaxPublicKey, !fitsRequest(userData, nonce, publicKey):
		return nil, InputTooLarge
	case publicKey != nil && len(publicKey) == 0:
		return nil, InvalidArgument
	}
	credential, err := n.enclave.Credential()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", InternalError, err)
	}
	d := attest.Document{
		ModuleID:    n.enclave.ModuleID(),
		Digest:      attest.DigestSHA384,
		Timestamp:   uint64(n.enclave.Now().UnixMilli()),
		PCRs:        n.lockedPCRs(),
		Certificate: credential.Certificate,
		CABundle:    credential.CABundle,
		PublicKey:   publicKey,
		UserData:    userData,
		Nonce:       nonce,
	}
	signed, err := d.Sign(credential.Key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", InternalError, err)
	}
	return signed, nil
}

func (n *NSM) lockedPCRs() map[uint64][]byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	pcrs := make(map[uint64][]byte, len(n.pcrs))
	for _, i := range n.pcrs.locked() {
		value := n.pcrs[i].Value
		pcrs[uint64(i)] = value[:]
	}
	return pcrs
}

// GetRandom returns 256 random bytes.
func (n *NSM) GetRandom() []byte {
	b := make([]byte, randomSize)
	rand.Read(b)
	return b
}
