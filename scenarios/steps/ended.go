package steps

import (
	"context"

	"github.com/nesim/nesim/scenarios"
)

var endedStep = kind[Ended]("ended", "wait until the enclave's VM has ended")

// Ended waits for the end of an enclave's VM and compares how it ended.
type Ended struct {
	Enclave string `yaml:"enclave" required:"true"`
	Reason  string `yaml:"reason" doc:"why it ended" enum:"asked,guest exit,guest panic,VM killed,VM failed"`
	Code    *int   `yaml:"code" doc:"the guest's exit code"`
}

// Check implements [scenarios.Action].
func (s *Ended) Check(c *scenarios.Checker) { c.Uses(scenarios.Enclave, s.Enclave) }

// Do implements [Action].
func (s *Ended) Do(ctx context.Context, w *World, _ Branch) error {
	e, err := w.enclave(s.Enclave)
	if err != nil {
		return err
	}
	exit, err := w.Stage.Exit(ctx, e.slot)
	if err != nil {
		return mismatch("it has not ended")
	}
	switch {
	case s.Reason != "" && s.Reason != exit.Reason.String():
		return mismatch("it ended by %v, not by %s", exit, s.Reason)
	case s.Code != nil && (exit.Code == nil || *s.Code != *exit.Code):
		return mismatch("it ended by %v, not with code %d", exit, *s.Code)
	}
	return nil
}
