package steps

import (
	"context"
	"regexp"

	"github.com/nesim/nesim/scenarios"
)

var callStep = kind[Call]("call", "send the hello workload a command on port 5006")

// Call sends the hello workload a command.
type Call struct {
	Enclave string `yaml:"enclave" required:"true"`
	Command string `yaml:"command" doc:"exit N, crash, panic, poweroff, reboot, triple-fault, hang, env, attest NONCE" required:"true"`
	Answer  string `yaml:"answer" doc:"a regular expression that the answer matches"`
}

// Check implements [scenarios.Action].
func (s *Call) Check(c *scenarios.Checker) {
	c.Uses(scenarios.Enclave, s.Enclave)
	c.Regexp(s.Answer)
}

// Do implements [Action].
func (s *Call) Do(ctx context.Context, w *World, b Branch) error {
	answer, err := w.ask(ctx, b, s.Enclave, s.Command)
	if err != nil {
		return err
	}
	want, err := regexp.Compile(s.Answer)
	if err != nil {
		return err
	}
	if !want.MatchString(answer) {
		return mismatch("the answer %.200q does not match %q", answer, s.Answer)
	}
	return nil
}
