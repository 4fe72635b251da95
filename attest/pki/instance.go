package pki

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"time"
)

// Profile says for whom an instance's certificates are. The zero value of each field
// stands for its default.
type Profile struct {
	Region       string           // us-east-1
	InstanceID   string           // a random one
	Clock        func() time.Time // time.Now
	LeafValidity time.Duration    // LeafValidity
}

// Instance is the parent instance: it issues the certificates of its enclaves. It is
// safe for concurrent use.
type Instance struct {
	authority *Authority
	profile   Profile

	mu    sync.Mutex
	chain []*pair // region, zone and instance
}

// Bounds of region and instance id in characters, so that no certificate grows over 1024 bytes
// and no common name over the 64 characters of RFC 5280 (ub-common-name).
const (
	maxRegion     = 14 // ap-southeast-1
	maxInstanceID = 19
)

// NewInstance returns an instance whose certificates end at the authority's root.
func NewInstance(a *Authority, p Profile) (*Instance, error) {
	if p.Region == "" {
		p.Region = "us-east-1"
	}
	if p.InstanceID == "" {
		p.InstanceID = NewInstanceID()
	}
	if p.Clock == nil {
		p.Clock = time.Now
	}
	if p.LeafValidity == 0 {
		p.LeafValidity = LeafValidity
	}
	switch {
	case !plain(p.Region, maxRegion):
		return nil, fmt.Errorf("region %.40q: want one such as us-east-1", p.Region)
	case !strings.HasPrefix(p.InstanceID, "i-") || !plain(p.InstanceID, maxInstanceID):
		return nil, fmt.Errorf("instance id %.40q: want one such as i-0123456789abcdef0", p.InstanceID)
	case p.LeafValidity < time.Second || p.LeafValidity > instanceValidity/2:
		return nil, fmt.Errorf("certificates valid for %v: want one second to %v", p.LeafValidity, instanceValidity/2)
	}
	return &Instance{authority: a, profile: p}, nil
}

// plain reports whether s has 1 to n lower-case letters, digits and dashes.
func plain(s string, n int) bool {
	return s != "" && len(s) <= n && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// ID returns the instance's id.
func (i *Instance) ID() string { return i.profile.InstanceID }

// upper returns region, zone and instance. They are made anew when they do not
// cover the time of an enclave's certificate that is issued now.
func (i *Instance) upper(now time.Time) ([]*pair, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, p := range i.chain {
		if !covers(p.cert, now, now.Add(i.profile.LeafValidity)) {
			i.chain = nil
			break
		}
	}
	if i.chain == nil {
		chain, err := i.makeChain(now)
		if err != nil {
			return nil, err
		}
		i.chain = chain
	}
	return i.chain, nil
}

func (i *Instance) makeChain(now time.Time) ([]*pair, error) {
	suffix := "." + i.profile.Region + "." + Partition + ".nitro-enclaves"
	levels := [depth]*x509.Certificate{
		{SerialNumber: serial(16), RawSubject: regionName(randomHex(8) + suffix), KeyUsage: caUsage,
			NotAfter: now.Add(regionValidity)},
		{SerialNumber: serial(16), RawSubject: zoneName(randomHex(8) + ".zonal" + suffix), KeyUsage: caUsage,
			NotAfter: now.Add(zoneValidity)},
		{SerialNumber: serial(20), RawSubject: hostName(i.profile.InstanceID + suffix), KeyUsage: x509.KeyUsageCertSign,
			NotAfter: now.Add(instanceValidity)},
	}
	parent, chain := i.authority.pair, make([]*pair, depth)
	for n, template := range levels {
		template.NotBefore = now.Add(-time.Minute)
		template.IsCA, template.MaxPathLen = true, depth-1-n
		template.MaxPathLenZero = template.MaxPathLen == 0
		p, err := issue(parent, template)
		if err != nil {
			return nil, err
		}
		parent, chain[n] = p, p
	}
	return chain, nil
}

// Enclave signs the documents of one enclave. It is safe for concurrent use.
type Enclave struct {
	instance *Instance
	uid      uint64

	mu         sync.Mutex
	credential *Credential
	leaf       *x509.Certificate
}

// Enclave returns what signs the documents of the enclave in a slot. Its certificates
// are made when they are needed.
func (i *Instance) Enclave(slotUID uint64) *Enclave { return &Enclave{instance: i, uid: slotUID} }

// ModuleID names the enclave's NSM, in the form of real ones.
func (e *Enclave) ModuleID() string { return fmt.Sprintf("%s-enc%016x", e.InstanceID(), e.uid) }

// InstanceID is the parent instance's.
func (e *Enclave) InstanceID() string { return e.instance.profile.InstanceID }

// Now is the time by the instance's clock.
func (e *Enclave) Now() time.Time { return e.instance.profile.Clock() }

// Credential returns the certificates and the key that sign now. They are renewed
// when a third of their time is left, so that a document can be verified for an hour
// at least.
func (e *Enclave) Credential() (*Credential, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.Now()
	if e.credential != nil && covers(e.leaf, now, now.Add(e.instance.profile.LeafValidity/3)) {
		return e.credential, nil
	}
	upper, err := e.instance.upper(now)
	if err != nil {
		return nil, err
	}
	leaf, err := issue(upper[depth-1], e.template(now))
	if err != nil {
		return nil, err
	}
	bundle := [][]byte{e.instance.authority.cert.Raw}
	for _, p := range upper {
		bundle = append(bundle, p.cert.Raw)
	}
	e.leaf, e.credential = leaf.cert, &Credential{Certificate: leaf.cert.Raw, CABundle: bundle, Key: leaf.key}
	return e.credential, nil
}

// template is the enclave's certificate: the serial number is the slot's uid and the
// time in seconds.
func (e *Enclave) template(now time.Time) *x509.Certificate {
	serial := binary.BigEndian.AppendUint64(nil, e.uid)
	serial = binary.BigEndian.AppendUint64(serial, uint64(now.Unix()))
	return &x509.Certificate{
		SerialNumber:    new(big.Int).SetBytes(serial),
		RawSubject:      hostName(e.ModuleID() + "." + e.instance.profile.Region + "." + Partition),
		NotBefore:       now.Add(-3 * time.Second),
		NotAfter:        now.Add(e.instance.profile.LeafValidity),
		ExtraExtensions: []pkix.Extension{leafUsage},
	}
}

// covers reports whether a certificate is valid from one time to another. Certificates count in seconds.
func covers(c *x509.Certificate, from, to time.Time) bool {
	return !from.Before(c.NotBefore) && !to.Truncate(time.Second).After(c.NotAfter)
}
