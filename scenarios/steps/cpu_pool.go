package steps

import (
	"context"

	"github.com/nesim/nesim/scenarios"
)

var cpuPoolStep = kind[CPUPool]("cpu_pool", "set the enclave CPU pool, as the ne_cpus parameter does")

// CPUPool sets the enclave CPU pool.
type CPUPool struct {
	CPUs string `yaml:"cpus" doc:"a CPU list such as 2-5,7" required:"true"`
}

// Check implements [scenarios.Action].
func (s *CPUPool) Check(*scenarios.Checker) {}

// Do implements [Action].
func (s *CPUPool) Do(_ context.Context, w *World, b Branch) error {
	return w.call(b, "parent", "ne_cpus "+s.CPUs, func() (string, error) { return "", w.Stage.Driver.SetCPUs(s.CPUs) })
}
