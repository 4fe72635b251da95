package stage

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/scenarios/fault"
	"github.com/nesim/nesim/scenarios/trace"
	"github.com/nesim/nesim/sim/parent"
	"github.com/nesim/nesim/sim/vsock"
)

// faultyNet is the switch as enclaves' machines see it: what passes is told to the trace, and faults strike.
type faultyNet struct {
	*vsock.Switch
	stage *Stage
}

// Connect lets a guest connect to the parent.
func (n *faultyNet) Connect(ctx context.Context, conn vsock.Conn) error {
	src, dst := conn.RemoteAddr().(*vsock.Addr), conn.LocalAddr().(*vsock.Addr)
	name := n.stage.nameOfCID(src.ContextID)
	o := fault.Occasion{At: fault.Vsock, Enclave: name, Port: dst.Port}
	if dst.Port == parent.HeartbeatPort {
		o.At = fault.Heartbeat
	}
	c := &faultyConn{Conn: conn, stage: n.stage, faults: n.stage.strike(o), closed: make(chan struct{})}
	if c.has(fault.Lose) {
		n.stage.swallow(c)
		return nil
	}
	if f := c.find(fault.Delay); f != nil && o.At == fault.Heartbeat {
		if err := sleep(ctx, f.For); err != nil {
			return err
		}
		f.For = 0 // what follows is not late once more
	}
	if c.has(fault.Refuse) {
		return unix.ECONNREFUSED
	}
	err := n.Switch.Connect(ctx, c)
	n.stage.note(name, trace.Vsock, outcome(fmt.Sprintf("connects to CID %d port %d", dst.ContextID, dst.Port), err))
	return err
}

// Attach puts an enclave on the switch.
func (n *faultyNet) Attach(cid uint32, e vsock.Endpoint) error {
	return n.Switch.Attach(cid, vsock.EndpointFunc(func(ctx context.Context, src vsock.Addr, port uint32) (vsock.Conn, error) {
		name := n.stage.nameOfCID(cid)
		struck := n.stage.strike(fault.Occasion{At: fault.Vsock, Enclave: name, Port: port})
		c := &faultyConn{stage: n.stage, faults: struck, closed: make(chan struct{})}
		if c.has(fault.Refuse) {
			return nil, unix.ECONNRESET
		}
		conn, err := e.Dial(ctx, src, port)
		n.stage.note(name, trace.Vsock, outcome(fmt.Sprintf("is dialled by CID %d on port %d", src.ContextID, port), err))
		if err != nil || len(struck) == 0 {
			return conn, err
		}
		c.Conn = conn
		return c, nil
	}))
}

func outcome(what string, err error) string {
	if err != nil {
		return what + ": " + err.Error()
	}
	return what
}

// faultyConn is a connection of an enclave's with its faults. It has one reader and one writer, as connections have here.
type faultyConn struct {
	vsock.Conn
	stage  *Stage
	faults []fault.Fault
	passed int  // bytes, read by its reader alone
	again  bool // the heartbeat's byte has to be read once more
	last   byte
	closed chan struct{}
	once   sync.Once
}

func (c *faultyConn) find(do fault.Action) *fault.Fault {
	for i := range c.faults {
		if c.faults[i].Do == do {
			return &c.faults[i]
		}
	}
	return nil
}

func (c *faultyConn) has(do fault.Action) bool { return c.find(do) != nil }

// Read reads what comes from the enclave.
func (c *faultyConn) Read(p []byte) (n int, err error) {
	if c.has(fault.Drop) {
		return 0, net.ErrClosed
	}
	if c.again && len(p) > 0 {
		c.again, p[0] = false, c.last
		return 1, nil
	}
	if p, err = c.cut(p); err != nil {
		return 0, err
	}
	n, err = c.Conn.Read(p)
	c.passed += n
	switch {
	case n == 0:
	case c.has(fault.Garbage):
		p[0] ^= 0xff
	case c.has(fault.Double):
		c.again, c.last = true, p[n-1]
	}
	return n, c.pace(n, err)
}

// cut carries out the faults that come after so many bytes, and shortens p to what may pass before.
func (c *faultyConn) cut(p []byte) ([]byte, error) {
	for _, f := range c.faults {
		if f.Do != fault.Reset && f.Do != fault.Half && f.Do != fault.Stall {
			continue
		}
		if left := f.Bytes - c.passed; left > 0 {
			return p[:min(len(p), left)], nil
		}
		switch f.Do {
		case fault.Reset:
			_ = c.Reset()
			return nil, unix.ECONNRESET
		case fault.Half:
			return nil, io.EOF
		default:
			<-c.closed
			return nil, net.ErrClosed
		}
	}
	return p, nil
}

// pace makes n bytes take their time.
func (c *faultyConn) pace(n int, err error) error {
	var wait time.Duration
	if f := c.find(fault.Delay); f != nil && n > 0 {
		wait += f.For
	}
	if f := c.find(fault.Limit); f != nil && f.Rate > 0 {
		wait += time.Duration(n) * time.Second / time.Duration(f.Rate)
	}
	if wait > 0 {
		c.pause(wait)
	}
	return err
}

func (c *faultyConn) pause(wait time.Duration) {
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.closed:
	}
}

// Write writes to the enclave.
func (c *faultyConn) Write(p []byte) (int, error) {
	if f := c.find(fault.Stall); f != nil && f.Bytes <= c.passed {
		<-c.closed
		return 0, net.ErrClosed
	}
	n, err := c.Conn.Write(p)
	return n, c.pace(n, err)
}

func (c *faultyConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// Reset ends the connection at once.
func (c *faultyConn) Reset() error {
	c.once.Do(func() { close(c.closed) })
	if r, ok := c.Conn.(interface{ Reset() error }); ok {
		return r.Reset()
	}
	return c.Conn.Close()
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
