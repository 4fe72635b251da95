package steps

import (
	"context"

	"github.com/nesim/nesim/scenarios"
	"github.com/nesim/nesim/sim/vsock"
)

var acceptStep = kind[Accept]("accept", "accept a connection")

// Accept accepts a connection on a listener. A listener on which none arrives in time is closed.
type Accept struct {
	As   string `yaml:"as" doc:"name of the connection" required:"true"`
	On   string `yaml:"on" doc:"the listener" required:"true"`
	From string `yaml:"from" doc:"the enclave that is expected to connect"`
}

// Check implements [scenarios.Action].
func (s *Accept) Check(c *scenarios.Checker) {
	c.Uses(scenarios.Enclave, s.From)
	c.Uses(scenarios.Endpoint, s.On)
	c.Makes(scenarios.Endpoint, s.As)
}

// Do implements [Action].
func (s *Accept) Do(ctx context.Context, w *World, _ Branch) error {
	l, err := find(w, w.listeners, "a listener", s.On)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	c, err := l.Accept()
	if !stop() && err != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	keep(w, w.conns, s.As, &conn{c.(vsock.Conn)})
	if s.From == "" {
		return nil
	}
	e, err := w.enclave(s.From)
	if err != nil {
		return err
	}
	if got := c.RemoteAddr().(*vsock.Addr).ContextID; got != e.cid.Load() {
		return mismatch("the connection comes from CID %d, not from %s (CID %d)", got, s.From, e.cid.Load())
	}
	return nil
}
