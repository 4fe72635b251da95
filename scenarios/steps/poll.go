package steps

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/scenarios"
	"github.com/nesim/nesim/scenarios/trace"
)

var pollStep = kind[Poll]("poll", "poll the enclave's descriptor")

// Poll waits for an enclave's descriptor to hang up, or checks that it does not.
type Poll struct {
	Enclave string        `yaml:"enclave" required:"true"`
	Expect  string        `yaml:"expect" doc:"hangup (default): POLLHUP comes; none: it does not" enum:"hangup,none"`
	Within  time.Duration `yaml:"within" doc:"how long to wait (default: hangup the step's time limit, none not at all)"`
}

// Check implements [scenarios.Action].
func (s *Poll) Check(c *scenarios.Checker) { c.Uses(scenarios.Enclave, s.Enclave) }

// Do implements [Action].
func (s *Poll) Do(ctx context.Context, w *World, b Branch) error {
	e, err := w.enclave(s.Enclave)
	if err != nil {
		return err
	}
	none := s.Expect == "none"
	if none || s.Within > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.Within)
		defer cancel()
	}
	hungUp := true
	select {
	case <-e.file.Done():
	case <-ctx.Done():
		hungUp = false
	}
	got := e.file.Poll()
	switch {
	case none && got == 0:
		return nil
	case none:
		return mismatch("poll gives %#x: %v", got, e.file.Err())
	case !hungUp:
		return mismatch("POLLHUP did not come")
	case got != unix.POLLHUP:
		return mismatch("poll gives %#x, not POLLHUP: %v", got, e.file.Err())
	}
	w.Note(b, e.name, trace.Ioctl, "poll = POLLHUP: "+e.file.Err().Error())
	return nil
}
