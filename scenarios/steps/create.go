package steps

import (
	"context"

	"github.com/nesim/nesim/scenarios"
	"github.com/nesim/nesim/scenarios/scripted"
)

var createStep = kind[Create]("create", "NE_CREATE_VM")

// Create makes an enclave.
type Create struct {
	Enclave string `yaml:"enclave" doc:"name of the enclave" required:"true"`
	Process string `yaml:"process" doc:"the parent's process; created when it is first named"`
}

// Check implements [scenarios.Action].
func (s *Create) Check(c *scenarios.Checker) {
	c.Makes(scenarios.Enclave, s.Enclave)
	c.Makes(scenarios.Process, s.Process)
}

// Do implements [Action].
func (s *Create) Do(_ context.Context, w *World, b Branch) error {
	process := w.process(s.Process)
	return w.call(b, s.Enclave, "NE_CREATE_VM", func() (string, error) {
		file, err := w.Stage.Driver.Open(process.Process).CreateVM()
		if err != nil {
			return "", err
		}
		e := &enclave{name: s.Enclave, process: process, file: file, slot: file.SlotUID()}
		w.mu.Lock()
		before := w.enclaves[s.Enclave]
		w.enclaves[s.Enclave] = e
		w.mu.Unlock()
		if before != nil {
			before.stopListening()
		}
		w.Stage.Name(e.slot, e.name, scripted.Behaviour{})
		return "", nil
	})
}
