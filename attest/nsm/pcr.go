package nsm

import (
	"crypto/sha512"

	"github.com/nesim/nesim/attest"
	"github.com/nesim/nesim/eif"
)

// reserved is how many PCRs are locked from the start.
const reserved = 16

// PCR is a platform configuration register.
type PCR struct {
	Locked bool
	Value  eif.Digest
}

type bank [attest.MaxPCRs]PCR

// newBank fills the PCRs as an enclave finds them (AWS Nitro Enclaves User Guide, "Where
// to get an enclave's measurements"). In debug mode those that measure the image are
// zero; those of the parent are not, as documents of such enclaves show.
func newBank(c *Config) (b bank) {
	if m := &c.Measurements; !c.Debug {
		b[0].Value, b[1].Value, b[2].Value = m.PCR0, m.PCR1, m.PCR2
		if m.PCR8 != nil {
			b[8].Value = *m.PCR8
		}
	}
	if c.RoleARN != "" {
		b[3].Value = extend(eif.Digest{}, []byte(c.RoleARN))
	}
	if id := c.Enclave.InstanceID(); id != "" {
		b[4].Value = extend(eif.Digest{}, []byte(id))
	}
	for i := range b[:reserved] {
		b[i].Locked = true
	}
	return b
}

// extend is how a PCR takes in data.
func extend(value eif.Digest, data []byte) (extended eif.Digest) {
	h := sha512.New384()
	h.Write(value[:])
	h.Write(data)
	h.Sum(extended[:0])
	return extended
}

func (b *bank) at(index uint16) (*PCR, error) {
	if int(index) >= len(b) {
		return nil, InvalidIndex
	}
	return &b[index], nil
}

// unlocked returns a PCR that may be changed.
func (b *bank) unlocked(index uint16) (*PCR, error) {
	p, err := b.at(index)
	if err == nil && p.Locked {
		return nil, ReadOnlyIndex
	}
	return p, err
}

func (b *bank) locked() []uint16 {
	indices := make([]uint16, 0, len(b))
	for i := range b {
		if b[i].Locked {
			indices = append(indices, uint16(i))
		}
	}
	return indices
}
