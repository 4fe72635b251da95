package instance

import (
	"fmt"
	"time"

	"github.com/nesim/nesim/attest/nsm"
	"github.com/nesim/nesim/attest/pki"
	"github.com/nesim/nesim/eif"
	"github.com/nesim/nesim/qemu/nsmdev"
	"github.com/nesim/nesim/qemu/setup"
	"github.com/nesim/nesim/sim/hypervisor"
)

// NSMConfig shapes the Nitro Secure Modules of an instance's enclaves. Zero values take the defaults, the role has none.
type NSMConfig struct {
	Off          bool          // enclaves have none
	RoleARN      string        // the parent's IAM role, which PCR3 measures; empty: the parent has none, and PCR3 is zero
	Region       string        // default: us-east-1
	CACert       string        // the root's certificate and key, two PEM files; default: the user's own root
	CAKey        string        //
	Clock        time.Time     // what the time is when the instance starts; default: the machine's
	LeafValidity time.Duration // of the certificates that sign; default: pki.LeafValidity
}

// open gives the instance its certificates, or nil where enclaves have no NSM.
func (c *NSMConfig) open(instanceID string) (*pki.Instance, error) {
	if c.Off {
		return nil, nil
	}
	root, err := OpenRoot(c.CACert, c.CAKey)
	if err != nil {
		return nil, err
	}
	return pki.NewInstance(root, pki.Profile{Region: c.Region, InstanceID: instanceID, Clock: c.clock(), LeafValidity: c.LeafValidity})
}

// clock returns a clock that runs from the time set, or nil for the machine's.
func (c *NSMConfig) clock() func() time.Time {
	if c.Clock.IsZero() {
		return nil
	}
	began := time.Now()
	return func() time.Time { return c.Clock.Add(time.Since(began)) }
}

// OpenRoot returns the root of all attestation documents: that of two PEM files, or else the user's own, which is made
// where there is none yet.
func OpenRoot(certFile, keyFile string) (*pki.Authority, error) {
	if certFile != "" || keyFile != "" {
		return pki.LoadAuthority(certFile, keyFile)
	}
	dir, err := pki.DefaultDir()
	if err != nil {
		return nil, err
	}
	return pki.Open(dir)
}

// nsm makes the NSM of an enclave that starts.
func (i *Instance) nsm(spec hypervisor.VMSpec) (nsmdev.Handler, error) {
	if e := i.enclaveOf(spec.SlotUID); i.pki == nil || e != nil && e.noNSM {
		return nil, nil
	}
	if !i.qemu.NSM {
		return nil, fmt.Errorf("QEMU %v (%s) has no %s, which the NSM needs: take a QEMU >= %v that has it, or give --no-nsm",
			i.qemu.Version, i.qemu.Path, setup.NSMDevice, setup.MinVersion)
	}
	return i.cfg.NSM.module(i.pki.Enclave(spec.SlotUID), spec.Measurements, spec.Debug).Respond, nil
}

// NewNSM makes the NSM that an enclave of an instance would have, with no machine.
func NewNSM(c NSMConfig, instanceID string, measured eif.Measurements, debug bool) (*nsm.NSM, error) {
	issuer, err := c.open(instanceID)
	if err != nil {
		return nil, err
	}
	enclave := issuer.Enclave(pki.NewSlotUID(time.Now()))
	return c.module(enclave, measured, debug), nil
}

func (c *NSMConfig) module(enclave *pki.Enclave, measured eif.Measurements, debug bool) *nsm.NSM {
	return nsm.New(nsm.Config{Enclave: enclave, Measurements: measured, Debug: debug, RoleARN: c.RoleARN})
}
