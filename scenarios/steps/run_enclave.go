package steps

import (
	"cmp"
	"context"
	"fmt"

	"github.com/nesim/nesim/scenarios"
	"github.com/nesim/nesim/scenarios/scripted"
)

var runStep = unlimited(kind[RunEnclave]("run", "create to heartbeat in one step, as run-enclave does"))

// What a run step gives an enclave by default.
const (
	runCPUs   = 2
	runMemory = 128 << 20 // bytes
)

// RunEnclave does what run-enclave does: it creates an enclave, gives it memory, an image and CPUs, starts it and waits
// for its heartbeat.
type RunEnclave struct {
	Enclave string              `yaml:"enclave" doc:"name of the enclave" required:"true"`
	Process string              `yaml:"process" doc:"the parent's process; created when it is first named"`
	CPUs    int                 `yaml:"cpus" max:"4096" doc:"vCPUs (default 2)"`
	Memory  scenarios.Size      `yaml:"memory" doc:"memory (default 128M)"`
	Image   string              `yaml:"image" doc:"hello (default), the name of a built image, or a file"`
	CID     uint64              `yaml:"cid" doc:"the CID (default 0: the hypervisor chooses)"`
	Debug   bool                `yaml:"debug" doc:"debug mode"`
	Does    *scripted.Behaviour `yaml:"does" doc:"what a scripted enclave does (default: what hello does)"`
	Expect  string              `yaml:"heartbeat" doc:"the outcome of the heartbeat (default answered)" enum:"answered,time-out,ended,bad"`
}

// Check implements [scenarios.Action].
func (s *RunEnclave) Check(c *scenarios.Checker) {
	checkBehaviour(c, s.Does)
	c.Makes(scenarios.Enclave, s.Enclave)
	c.Makes(scenarios.Process, s.Process)
}

// Do implements [Action].
func (s *RunEnclave) Do(ctx context.Context, w *World, b Branch) error {
	image := cmp.Or(s.Image, helloImage)
	if err := w.checkDates(ctx, image); err != nil {
		return fmt.Errorf("image %s: %w", image, err)
	}
	for _, step := range []Action{
		&Create{Enclave: s.Enclave, Process: s.Process},
		&AddMemory{Enclave: s.Enclave, Size: cmp.Or(s.Memory, runMemory), Image: image},
		&AddCPU{Enclave: s.Enclave, Count: cmp.Or(s.CPUs, runCPUs)},
		&Start{Enclave: s.Enclave, CID: s.CID, Debug: s.Debug, Does: s.Does},
		&Heartbeat{Enclave: s.Enclave, Expect: s.Expect},
	} {
		if err := step.Do(ctx, w, b); err != nil {
			return err
		}
	}
	return nil
}
