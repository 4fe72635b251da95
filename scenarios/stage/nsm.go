package stage

import (
	"bytes"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/nesim/nesim/attest/nsm"
	"github.com/nesim/nesim/attest/pki"
	"github.com/nesim/nesim/scenarios/fault"
	"github.com/nesim/nesim/scenarios/trace"
	"github.com/nesim/nesim/sim/hypervisor"
)

// newPKI makes the certificates of the stage, under a root that lives as long as it.
func (s *Stage) newPKI() (_ *pki.Instance, err error) {
	if s.root, err = pki.NewAuthority(time.Now()); err != nil {
		return nil, err
	}
	return pki.NewInstance(s.root, pki.Profile{InstanceID: "i-0000000000000000", Clock: func() time.Time {
		s.mu.Lock()
		defer s.mu.Unlock()
		return time.Now().Add(s.skew)
	}})
}

// Root is the root of attestation on this stage; nil where enclaves have no NSM.
func (s *Stage) Root() *pki.Authority { return s.root }

// nsm makes an enclave's NSM, with its faults, or gives nil where enclaves have none.
func (s *Stage) nsm(spec hypervisor.VMSpec) (func(request []byte, room int) []byte, error) {
	if s.pki == nil {
		return nil, nil
	}
	module := nsm.New(nsm.Config{
		Enclave: s.pki.Enclave(spec.SlotUID), Measurements: spec.Measurements, Debug: spec.Debug, RoleARN: nsm.DefaultRoleARN,
	})
	name := s.nameOf(spec.SlotUID)
	return func(request []byte, room int) []byte {
		if bytes.Equal(request, getRandom) { // by the guest's kernel, whenever it likes: no occasion for a fault
			s.note(name, trace.NSM, "asks its NSM for random bytes")
			return module.Respond(request, room)
		}
		s.note(name, trace.NSM, "asks its NSM")
		for _, f := range s.strike(fault.Occasion{At: fault.NSM, Enclave: name}) {
			switch f.Do {
			case fault.Error:
				answer, err := cbor.Marshal(map[string]string{"Error": f.Code})
				if err == nil {
					return answer
				}
			case fault.Garbage:
				answer := make([]byte, min(room, 64))
				s.Faults.Bytes(answer)
				return answer
			case fault.Expire:
				s.setSkew(-pki.LeafValidity - time.Hour)
			case fault.Skew:
				s.setSkew(f.For)
			}
		}
		return module.Respond(request, room)
	}, nil
}

// getRandom is the request of that name: a CBOR text string.
var getRandom = []byte("\x69GetRandom")

func (s *Stage) setSkew(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.skew = d
}
