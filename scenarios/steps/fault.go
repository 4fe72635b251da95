package steps

import (
	"context"

	"github.com/nesim/nesim/scenarios"
	"github.com/nesim/nesim/scenarios/fault"
)

var faultStep = kind[Fault]("fault", "arm a fault from now on")

// Fault arms a fault.
type Fault struct{ fault.Fault }

// Check implements [scenarios.Action].
func (s *Fault) Check(c *scenarios.Checker) {
	if err := s.Fault.Check(); err != nil {
		c.Fail("%v", err)
	}
}

// Do implements [Action].
func (s *Fault) Do(_ context.Context, w *World, b Branch) error {
	w.Stage.Faults.AddBy(s.Fault, b.Step)
	return nil
}
