package steps

import (
	"context"
	"fmt"

	"github.com/nesim/nesim/scenarios"
)

var addCPUStep = kind[AddCPU]("add_cpu", "NE_ADD_VCPU")

// AddCPU gives an enclave vCPUs.
type AddCPU struct {
	Enclave string `yaml:"enclave" required:"true"`
	CPU     uint32 `yaml:"cpu" doc:"the CPU's number (default 0: the driver chooses)"`
	Count   int    `yaml:"count" max:"4096" doc:"how many times (default 1)"`
}

// Check implements [scenarios.Action].
func (s *AddCPU) Check(c *scenarios.Checker) { c.Uses(scenarios.Enclave, s.Enclave) }

// Do implements [Action].
func (s *AddCPU) Do(_ context.Context, w *World, b Branch) error {
	e, err := w.enclave(s.Enclave)
	if err != nil {
		return err
	}
	for range max(s.Count, 1) {
		if err := w.Stopped(); err != nil {
			return err
		}
		err := w.call(b, e.name, fmt.Sprintf("NE_ADD_VCPU %d", s.CPU), func() (string, error) {
			cpu, err := e.file.AddVCPU(s.CPU)
			return fmt.Sprint("CPU ", cpu), err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
