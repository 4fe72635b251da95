package steps

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/nesim/nesim/scenarios"
	"github.com/nesim/nesim/scenarios/trace"
	"github.com/nesim/nesim/sim/parent"
)

var heartbeatStep = unlimited(kind[Heartbeat]("heartbeat", "wait for the heartbeat of a started enclave"))

// Heartbeat waits for the heartbeat of an enclave.
type Heartbeat struct {
	Enclave string        `yaml:"enclave" required:"true"`
	Within  time.Duration `yaml:"within" doc:"timeout (default: nitro-cli's)"`
	Expect  string        `yaml:"expect" doc:"the outcome (default answered)" enum:"answered,time-out,ended,bad"`
}

// Check implements [scenarios.Action].
func (s *Heartbeat) Check(c *scenarios.Checker) { c.Uses(scenarios.Enclave, s.Enclave) }

// Do implements [Action].
func (s *Heartbeat) Do(ctx context.Context, w *World, b Branch) error {
	e, err := w.enclave(s.Enclave)
	if err != nil {
		return err
	}
	if e.heartbeat == nil {
		return errors.New("nobody listens for its heartbeat: start the enclave first, without unheard")
	}
	limit := cmp.Or(s.Within, parent.Timeout(e.image, e.memory))
	err = e.heartbeat.Wait(ctx, e.cid.Load(), limit, e.file.Done())
	e.stopListening()
	outcome := heartbeatOutcome(err)
	w.Note(b, e.name, trace.Heartbeat, outcome)
	w.measure(b, e)
	switch want := cmp.Or(s.Expect, "answered"); {
	case outcome == want:
		return nil
	case err != nil:
		return mismatch("heartbeat %s, not %s: %v", outcome, want, err)
	default:
		return mismatch("heartbeat %s, not %s", outcome, want)
	}
}

// heartbeatOutcome is the word of files for what became of a heartbeat.
func heartbeatOutcome(err error) string {
	switch {
	case err == nil:
		return "answered"
	case errors.Is(err, parent.ErrTimeout):
		return "time-out"
	case errors.Is(err, parent.ErrEnded):
		return "ended"
	case errors.Is(err, parent.ErrBadHeartbeat):
		return "bad"
	}
	return "failed"
}
