package steps

import (
	"context"

	"github.com/nesim/nesim/scenarios"
	"github.com/nesim/nesim/sim/vsock"
)

var listenStep = kind[Listen]("listen", "listen on a port of the parent")

// Listen listens on a port of the parent.
type Listen struct {
	As   string `yaml:"as" doc:"name of the listener" required:"true"`
	Port uint32 `yaml:"port" required:"true"`
}

// Check implements [scenarios.Action].
func (s *Listen) Check(c *scenarios.Checker) { c.Makes(scenarios.Endpoint, s.As) }

// Do implements [Action].
func (s *Listen) Do(_ context.Context, w *World, _ Branch) error {
	listener, err := w.Stage.Net.Listen(vsock.Addr{ContextID: vsock.CIDParent, Port: s.Port})
	if err != nil {
		return err
	}
	keep(w, w.listeners, s.As, listener)
	return nil
}
