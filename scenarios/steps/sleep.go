package steps

import (
	"context"
	"time"

	"github.com/nesim/nesim/scenarios"
)

var sleepStep = unlimited(kind[Sleep]("sleep", "wait, where there is nothing to wait for"))

// Sleep waits.
type Sleep struct {
	For time.Duration `yaml:"for" doc:"how long" required:"true"`
	Why string        `yaml:"why" doc:"why there is nothing to wait for" required:"true"`
}

// Check implements [scenarios.Action].
func (s *Sleep) Check(*scenarios.Checker) {}

// Do implements [Action].
func (s *Sleep) Do(ctx context.Context, _ *World, _ Branch) error { return sleep(ctx, s.For) }
