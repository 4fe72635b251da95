package stage

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/internal/guestwire"
	"github.com/nesim/nesim/scenarios/fault"
	"github.com/nesim/nesim/scenarios/trace"
	"github.com/nesim/nesim/sim/vsock"
)

// faultyNet is the switch as enclaves' machines see it: what passes is told to the trace, and faults strike.
type faultyNet struct {
	*vsock.Switch
	stage *Stage
}

// Connect lets a guest connect to the parent.
func (n *faultyNet) Connect(ctx context.Context, conn vsock.Conn) error {
	s, src, dst := n.stage, conn.RemoteAddr().(*vsock.Addr), conn.LocalAddr().(*vsock.Addr)
	name := s.nameOfCID(src.ContextID)
	o := fault.Occasion{At: fault.Vsock, Enclave: name, Port: dst.Port}
	if dst.Port == guestwire.HeartbeatPort {
		o.At = fault.Heartbeat
	}
	what := fmt.Sprintf("connection to CID %d port %d", dst.ContextID, dst.Port)
	c := newConn(s, name, what, s.strike(o))
	c.Conn = conn
	switch late := c.find(fault.Delay); {
	case c.has(fault.Lose):
		s.note(name, trace.Vsock, what+" goes nowhere")
		s.swallow(c)
		return nil
	case c.has(fault.Refuse):
		s.note(name, trace.Vsock, what+" is refused")
		return unix.ECONNREFUSED
	case late != nil && o.At == fault.Heartbeat:
		c.faults = nil
		if err := sleep(ctx, late.For); err != nil {
			return err
		}
	}
	s.note(name, trace.Vsock, what)
	err := n.Switch.Connect(ctx, c)
	if err != nil {
		s.note(name, trace.Vsock, what+" fails: "+err.Error())
	}
	return err
}

// Attach puts an enclave on the switch.
func (n *faultyNet) Attach(cid uint32, e vsock.Endpoint) error {
	return n.Switch.Attach(cid, vsock.EndpointFunc(func(ctx context.Context, src vsock.Addr, port uint32) (vsock.Conn, error) {
		s, name := n.stage, n.stage.nameOfCID(cid)
		what := fmt.Sprintf("connection from CID %d to port %d", src.ContextID, port)
		conn, err := e.Dial(ctx, src, port)
		if err != nil {
			s.note(name, trace.Vsock, what+" fails: "+err.Error())
			return nil, err
		}
		s.note(name, trace.Vsock, what)
		c := newConn(s, name, what, s.strike(fault.Occasion{At: fault.Vsock, Enclave: name, Port: port}))
		c.Conn = conn
		if c.has(fault.Refuse) {
			_ = c.Reset()
			return nil, unix.ECONNRESET
		}
		return c, nil
	}))
}

// swallow keeps a guest's connection open and never answers on it, until the guest or the stage ends.
func (s *Stage) swallow(c *faultyConn) {
	s.held.Go(func() {
		defer c.Conn.Close()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			buf := make([]byte, 1)
			for {
				if _, err := c.Conn.Read(buf); err != nil {
					return
				}
			}
		}()
		select {
		case <-ended:
		case <-s.gone:
			c.Conn.Close()
			<-ended
		}
	})
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
