package steps

import (
	"context"

	"github.com/nesim/nesim/scenarios"
)

var dialStep = kind[Dial]("dial", "connect from the parent to a port, once something listens there")

// Dial connects from the parent to an enclave's port.
type Dial struct {
	As      string `yaml:"as" doc:"name of the connection" required:"true"`
	Enclave string `yaml:"enclave" doc:"the enclave to connect to"`
	CID     uint32 `yaml:"cid" doc:"the CID to connect to, instead of an enclave"`
	Port    uint32 `yaml:"port" required:"true"`
	Once    bool   `yaml:"once" doc:"do not wait until something listens"`
}

// Check implements [scenarios.Action].
func (s *Dial) Check(c *scenarios.Checker) {
	c.Uses(scenarios.Enclave, s.Enclave)
	c.Makes(scenarios.Endpoint, s.As)
}

// Do implements [Action].
func (s *Dial) Do(ctx context.Context, w *World, b Branch) error {
	cid := s.CID
	if s.Enclave != "" {
		e, err := w.enclave(s.Enclave)
		if err != nil {
			return err
		}
		cid = e.cid.Load()
	}
	conn, err := w.connect(ctx, b, cid, s.Port, !b.Fails && !s.Once)
	if err != nil {
		return err
	}
	keep(w, w.conns, s.As, conn)
	return nil
}
