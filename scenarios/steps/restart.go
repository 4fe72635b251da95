package steps

import (
	"context"

	"github.com/nesim/nesim/scenarios"
)

var restartStep = kind[Restart]("restart", "restart the daemon that plays the hypervisor")

// Restart ends and starts the daemon that plays the hypervisor.
type Restart struct{}

// Check implements [scenarios.Action].
func (s *Restart) Check(*scenarios.Checker) {}

// Do implements [Action].
func (s *Restart) Do(ctx context.Context, w *World, b Branch) (err error) {
	w.alone(b, func() { err = w.Stage.Restart(ctx) })
	return err
}
