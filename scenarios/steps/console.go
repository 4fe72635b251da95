package steps

import (
	"context"
	"regexp"

	"github.com/nesim/nesim/scenarios"
)

var consoleStep = kind[Console]("console", "wait for text on the console")

// Console waits for text on an enclave's console, in debug mode or not.
type Console struct {
	Enclave string `yaml:"enclave" required:"true"`
	Regexp  string `yaml:"regexp" doc:"a regular expression that the console's text matches" required:"true"`
}

// Check implements [scenarios.Action].
func (s *Console) Check(c *scenarios.Checker) {
	c.Uses(scenarios.Enclave, s.Enclave)
	c.Regexp(s.Regexp)
}

// Do implements [Action].
func (s *Console) Do(ctx context.Context, w *World, _ Branch) error {
	e, err := w.enclave(s.Enclave)
	if err != nil {
		return err
	}
	want, err := regexp.Compile(s.Regexp)
	if err != nil {
		return err
	}
	text, err := w.Stage.Console(ctx, e.slot, func(text string) bool { return w.stop() != nil || want.MatchString(text) })
	if err := w.stop(); err != nil {
		return err
	}
	if err != nil {
		return mismatch("the console does not show %q; it ends with %.200q", s.Regexp, last(text, 200))
	}
	return nil
}

// last returns the last n bytes of a text, or all of it.
func last(text string, n int) string { return text[max(0, len(text)-n):] }
