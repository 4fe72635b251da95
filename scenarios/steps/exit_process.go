package steps

import (
	"context"

	"github.com/nesim/nesim/scenarios"
)

var exitProcessStep = kind[ExitProcess]("exit_process", "end a process of the parent, with everything it holds")

// ExitProcess ends a process of the parent.
type ExitProcess struct {
	Process string `yaml:"process" required:"true"`
}

// Check implements [scenarios.Action].
func (s *ExitProcess) Check(c *scenarios.Checker) { c.Uses(scenarios.Process, s.Process) }

// Do implements [Action].
func (s *ExitProcess) Do(_ context.Context, w *World, b Branch) error {
	process, err := find(w, w.processes, scenarios.Process, s.Process)
	if err != nil {
		return err
	}
	return w.call(b, "parent", "process "+s.Process+" exits", func() (string, error) { return "", process.exit() })
}
