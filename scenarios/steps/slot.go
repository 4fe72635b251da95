package steps

import (
	"context"
	"time"

	"github.com/dustin/go-humanize/english"

	"github.com/nesim/nesim/pcidev"
	"github.com/nesim/nesim/scenarios"
)

var slotStep = kind[Slot]("slot", "compare the device's view of the enclave's slot")

// slotTime is how long a slot may take to become what is expected.
const slotTime = 5 * time.Second

// Slot compares an enclave's slot with what is expected.
type Slot struct {
	Enclave string          `yaml:"enclave" required:"true"`
	State   string          `yaml:"state" doc:"the slot's state" enum:"init,running,stopped,freed"`
	Memory  *scenarios.Size `yaml:"memory" doc:"the slot's memory"`
	Regions *uint64         `yaml:"regions" doc:"number of memory regions"`
	CPUs    *uint64         `yaml:"cpus" doc:"number of vCPUs"`
	CID     *uint64         `yaml:"cid" doc:"the enclave's CID"`
}

// Check implements [scenarios.Action].
func (s *Slot) Check(c *scenarios.Checker) { c.Uses(scenarios.Enclave, s.Enclave) }

// Do implements [Action].
func (s *Slot) Do(ctx context.Context, w *World, b Branch) error {
	e, err := w.enclave(s.Enclave)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, slotTime)
	defer cancel()
	return w.until(ctx, b, func() error { return s.compare(w, e) })
}

func (s *Slot) compare(w *World, e *enclave) error {
	got, exists := w.Stage.Hypervisor.Slot(e.slot)
	state := "freed"
	if exists {
		state = pcidev.StateName(got.State)
	}
	switch {
	case s.State != "" && s.State != state:
		return mismatch("its state is %s, not %s", state, s.State)
	case s.Memory != nil && uint64(*s.Memory) != got.MemSize:
		return mismatch("it has %d KiB of memory, not %d", got.MemSize>>10, *s.Memory>>10)
	case s.Regions != nil && *s.Regions != got.MemRegions:
		return mismatch("it has %s, not %d", english.Plural(int(got.MemRegions), "memory region", ""), *s.Regions)
	case s.CPUs != nil && *s.CPUs != got.NrVCPUs:
		return mismatch("it has %s, not %d", english.Plural(int(got.NrVCPUs), "vCPU", ""), *s.CPUs)
	case s.CID != nil && *s.CID != got.EnclaveCID:
		return mismatch("its CID is %d, not %d", got.EnclaveCID, *s.CID)
	}
	return nil
}
