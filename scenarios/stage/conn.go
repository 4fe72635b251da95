package stage

import (
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/scenarios/fault"
	"github.com/nesim/nesim/scenarios/trace"
	"github.com/nesim/nesim/sim/vsock"
)

// faultyConn is the parent's end of a connection of an enclave's, with its faults. It has one reader and one writer, as
// connections have here. What its faults make wait ends by a deadline or by Close, as everything on a connection.
type faultyConn struct {
	vsock.Conn
	stage      *Stage
	name, what string // for the trace
	faults     []fault.Fault

	in, out  atomic.Int64 // bytes that have passed
	late     []byte       // read, and not due before
	due      time.Time
	readBy   deadline
	writeBy  deadline
	closed   chan struct{}
	once     sync.Once
	struck   sync.Map // the faults that have struck after so many bytes
	reported sync.Once
}

func newConn(s *Stage, name, what string, faults []fault.Fault) *faultyConn {
	c := &faultyConn{stage: s, name: name, what: what, faults: faults, closed: make(chan struct{})}
	c.readBy.changed, c.writeBy.changed = make(chan struct{}), make(chan struct{})
	return c
}

// Underlying is the connection whose hang-up is this one's, or nil where faults may keep back what came before it.
func (c *faultyConn) Underlying() vsock.Conn {
	if len(c.faults) > 0 {
		return nil
	}
	return c.Conn
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
func (c *faultyConn) Read(p []byte) (int, error) {
	if len(c.faults) == 0 {
		n, err := c.Conn.Read(p)
		c.in.Add(int64(n))
		return n, err
	}
	if len(c.late) == 0 {
		if err := c.fetch(len(p)); err != nil || len(c.late) == 0 {
			return 0, err
		}
	}
	if err := c.wait(time.Until(c.due), &c.readBy); err != nil {
		return 0, err
	}
	n := copy(p, c.late)
	c.late = c.late[n:]
	return n, nil
}

// fetch reads at most n bytes into late.
func (c *faultyConn) fetch(n int) error {
	if c.has(fault.Drop) {
		_ = c.Conn.Close()
		return io.EOF
	}
	n, err := c.left(n, &c.readBy)
	if err != nil {
		return err
	}
	buf := make([]byte, c.piece(n))
	n, err = c.Conn.Read(buf)
	c.in.Add(int64(n))
	if n == 0 {
		return err
	}
	c.late, c.due = buf[:n], time.Now().Add(c.pace(n))
	switch {
	case c.has(fault.Garbage):
		c.late[0] ^= 0xff
	case c.has(fault.Double):
		c.late = append(c.late, c.late...)
	}
	return nil
}

// left carries out the faults that come after so many bytes, and reports how many of n may pass before. What counts for a
// reset is what has come from the enclave; both directions stall, each for itself; only the enclave's ends.
func (c *faultyConn) left(n int, by *deadline) (int, error) {
	for _, f := range c.faults {
		writing, passed := by == &c.writeBy, int(c.in.Load())
		switch {
		case f.Do == fault.Stall && writing:
			passed = int(c.out.Load())
		case f.Do == fault.Reset && writing && f.Bytes > passed, f.Do == fault.Half && writing:
			continue
		case f.Do != fault.Reset && f.Do != fault.Half && f.Do != fault.Stall:
			continue
		}
		if f.Bytes > passed {
			n = min(n, f.Bytes-passed)
			continue
		}
		if _, before := c.struck.LoadOrStore(f, true); !before {
			c.stage.Faults.Took(f)
			c.stage.note(c.name, trace.Fault, fmt.Sprintf("%s: %s after %d bytes of the %s", f.Name, f.Do, passed, c.what))
		}
		switch f.Do {
		case fault.Reset:
			_ = c.Reset()
			return 0, unix.ECONNRESET
		case fault.Half:
			return 0, io.EOF
		default:
			return 0, c.wait(math.MaxInt64, by)
		}
	}
	return n, nil
}

// piece is how many of n bytes pass at a time: with a limited rate, what takes a tenth of a second.
func (c *faultyConn) piece(n int) int {
	if f := c.find(fault.Limit); f != nil && f.Rate > 0 {
		return min(n, max(1, f.Rate/10))
	}
	return n
}

// pace is how long n bytes take.
func (c *faultyConn) pace(n int) (wait time.Duration) {
	if f := c.find(fault.Delay); f != nil {
		wait += f.For
	}
	if f := c.find(fault.Limit); f != nil && f.Rate > 0 {
		wait += time.Duration(n) * time.Second / time.Duration(f.Rate)
	}
	return wait
}

// Write writes to the enclave.
func (c *faultyConn) Write(p []byte) (done int, err error) {
	for {
		n := len(p)
		if n, err = c.left(n, &c.writeBy); err != nil {
			return done, err
		}
		n = c.piece(n)
		if err := c.wait(c.pace(n), &c.writeBy); err != nil {
			return done, err
		}
		n, err = c.Conn.Write(p[:n])
		c.out.Add(int64(n))
		done, p = done+n, p[n:]
		if err != nil || len(p) == 0 {
			return done, err
		}
	}
}

// wait waits for so long, unless the deadline or Close comes before.
func (c *faultyConn) wait(d time.Duration, by *deadline) error {
	if d <= 0 {
		return nil
	}
	over := time.NewTimer(d)
	defer over.Stop()
	for {
		at, changed := by.get()
		limit := time.Duration(math.MaxInt64)
		if !at.IsZero() {
			limit = time.Until(at)
		}
		t := time.NewTimer(limit)
		select {
		case <-over.C:
			t.Stop()
			return nil
		case <-c.closed:
			t.Stop()
			return net.ErrClosed
		case <-t.C:
			return os.ErrDeadlineExceeded
		case <-changed:
			t.Stop()
		}
	}
}

// Close implements net.Conn.
func (c *faultyConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	c.report("closed")
	return c.Conn.Close()
}

// Reset ends the connection at once.
func (c *faultyConn) Reset() error {
	c.once.Do(func() { close(c.closed) })
	c.report("reset")
	if r, ok := c.Conn.(interface{ Reset() error }); ok {
		return r.Reset()
	}
	return c.Conn.Close()
}

// report tells the connection's end, and what it has carried.
func (c *faultyConn) report(end string) {
	c.reported.Do(func() {
		c.stage.note(c.name, trace.Vsock, fmt.Sprintf("%s %s: %s from the enclave, %s to it", c.what, end, amount(c.in.Load()), amount(c.out.Load())))
	})
}

// SetDeadline implements net.Conn.
func (c *faultyConn) SetDeadline(t time.Time) error {
	c.readBy.set(t)
	c.writeBy.set(t)
	return c.Conn.SetDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (c *faultyConn) SetReadDeadline(t time.Time) error {
	c.readBy.set(t)
	return c.Conn.SetReadDeadline(t)
}

// SetWriteDeadline implements net.Conn.
func (c *faultyConn) SetWriteDeadline(t time.Time) error {
	c.writeBy.set(t)
	return c.Conn.SetWriteDeadline(t)
}

// deadline is a time that may change while it is waited for.
type deadline struct {
	mu      sync.Mutex
	at      time.Time
	changed chan struct{} // closed when at changes
}

func (d *deadline) get() (time.Time, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.at, d.changed
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at = t
	close(d.changed)
	d.changed = make(chan struct{})
}

// amount reports how much has passed, in whole KiB where it is much: how long an attestation document is depends on chance.
func amount(n int64) string {
	if n < 1<<10 {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("about %d KiB", n>>10)
}
