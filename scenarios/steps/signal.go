package steps

import (
	"context"
	"os"
	"syscall"

	"github.com/nesim/nesim/scenarios"
	"github.com/nesim/nesim/scenarios/trace"
)

var signalStep = kind[Signal]("signal", "send a signal to the enclave's VMM")

// Signal sends a signal to an enclave's VMM.
type Signal struct {
	Enclave string `yaml:"enclave" required:"true"`
	Signal  string `yaml:"signal" doc:"kill, stop or cont; oom: kill it as a host without memory does" required:"true" enum:"kill,stop,cont,oom"`
}

var signals = map[string]os.Signal{"kill": syscall.SIGKILL, "stop": syscall.SIGSTOP, "cont": syscall.SIGCONT, "oom": syscall.SIGKILL}

// Check implements [scenarios.Action].
func (s *Signal) Check(c *scenarios.Checker) { c.Uses(scenarios.Enclave, s.Enclave) }

// Do implements [Action].
func (s *Signal) Do(_ context.Context, w *World, b Branch) error {
	e, err := w.enclave(s.Enclave)
	if err != nil {
		return err
	}
	if s.Signal == "oom" {
		w.Note(b, e.name, trace.Fault, "the host is out of memory, and its kernel picks this VMM")
	}
	return w.Stage.Kill(e.slot, signals[s.Signal])
}
