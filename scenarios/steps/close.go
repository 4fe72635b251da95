package steps

import (
	"context"

	"github.com/nesim/nesim/scenarios"
)

var closeStep = kind[Close]("close", "close a connection, a listener or an enclave's descriptor")

// Close closes something.
type Close struct {
	On        string `yaml:"on" doc:"a connection or a listener"`
	WriteOnly bool   `yaml:"write_only" doc:"half close a connection"`
	Enclave   string `yaml:"enclave" doc:"an enclave, to close its descriptor"`
}

// Check implements [scenarios.Action].
func (s *Close) Check(c *scenarios.Checker) {
	c.Uses(scenarios.Endpoint, s.On)
	c.Uses(scenarios.Enclave, s.Enclave)
	c.OneOf("on or enclave", s.On != "", s.Enclave != "")
}

// Do implements [Action].
func (s *Close) Do(_ context.Context, w *World, b Branch) error {
	if s.Enclave != "" {
		return w.closeEnclave(b, s.Enclave)
	}
	if l, err := find(w, w.listeners, "a listener", s.On); err == nil {
		return l.Close()
	}
	c, err := find(w, w.conns, "a connection", s.On)
	switch {
	case err != nil:
		return err
	case s.WriteOnly:
		return c.CloseWrite()
	}
	return c.Close()
}
