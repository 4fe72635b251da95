package vsockdev

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/qemu/vhostuser"
)

// Conn is a stream between somebody here and somebody in the guest. It is a
// net.Conn; its errors are *net.OpError with both addresses: ECONNRESET when the
// guest has reset the connection or is gone, EPIPE when nobody reads what is
// written, os.ErrDeadlineExceeded, net.ErrClosed.
type Conn struct {
	dev    *Device
	key    key
	local  vsock.Addr
	remote vsock.Addr

	ended    chan struct{}      // closed once no packet goes either way any more
	answered chan struct{}      // closed once the guest has answered Dial's REQUEST
	cancel   context.CancelFunc // ends Config.Connect; nil on a dialled connection

	readLock  sync.Mutex // one Read at a time
	writeLock sync.Mutex // one Write at a time

	queued bool // among the device's senders; guarded by Device.mu

	mu         sync.Mutex // guards the rest
	machine    machine
	in         fifo   // from the guest
	out        []byte // what the running Write has left
	closed     bool
	linger     *time.Timer
	readLimit  limit
	writeLimit limit
}

var _ net.Conn = (*Conn)(nil)

// lingerTime is how long a closed connection waits for the guest's RST
// (VSOCK_CLOSE_TIMEOUT in net/vmw_vsock/virtio_transport_common.c).
const lingerTime = 8 * time.Second

func newConn(d *Device, k key, s state) *Conn {
	c := &Conn{
		dev: d, key: k,
		local:    vsock.Addr{ContextID: k.cid, Port: k.port},
		remote:   vsock.Addr{ContextID: d.config.CID, Port: k.guestPort},
		ended:    make(chan struct{}),
		answered: make(chan struct{}),
	}
	c.machine.state = s
	c.readLimit.wake = make(chan struct{}, 1)
	c.writeLimit.wake = make(chan struct{}, 1)
	return c
}

// LocalAddr returns the address on our side, a *vsock.Addr.
func (c *Conn) LocalAddr() net.Addr { return &c.local }

// RemoteAddr returns the address in the guest, a *vsock.Addr.
func (c *Conn) RemoteAddr() net.Addr { return &c.remote }

// Gone is closed when the guest has closed the connection in both directions, or either side has reset it: what the guest
// sent before can still be read.
func (c *Conn) Gone() <-chan struct{} { return c.ended }

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Read implements net.Conn. What the guest sent before it closed or reset the
// connection can still be read.
func (c *Conn) Read(p []byte) (int, error) {
	c.readLock.Lock()
	defer c.readLock.Unlock()
	c.mu.Lock()
	for {
		err := c.readError()
		if err == io.EOF {
			c.mu.Unlock()
			return 0, err
		}
		if err != nil {
			c.mu.Unlock()
			return 0, c.opError("read", err)
		}
		if c.in.len > 0 || len(p) == 0 {
			break
		}
		c.mu.Unlock()
		<-c.readLimit.wake
		c.mu.Lock()
	}
	n := c.in.read(p)
	c.machine.consume(n)
	busy := c.machine.busy(len(c.out))
	c.mu.Unlock()
	c.dev.send(c, news{busy: busy})
	return n, nil
}

func (c *Conn) readError() error {
	switch {
	case c.closed:
		return net.ErrClosed
	case c.readLimit.passed:
		return os.ErrDeadlineExceeded
	case c.in.len > 0:
		return nil
	case c.machine.peerShut&shutdownSend != 0:
		return io.EOF
	case c.machine.state == gone && c.machine.err != nil:
		return c.machine.err
	case c.machine.state == gone:
		return io.EOF
	}
	return nil
}

// Write implements net.Conn. It returns once the guest's device driver has all of p.
func (c *Conn) Write(p []byte) (int, error) {
	c.writeLock.Lock()
	defer c.writeLock.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = p
	for first := true; ; first = false {
		if len(c.out) > 0 || first { // once all is out, what becomes of the connection is for the next call
			if err := c.writeError(); err != nil {
				n := len(p) - len(c.out)
				c.out = nil
				return n, c.opError("write", err)
			}
		}
		if len(c.out) == 0 {
			c.out = nil
			return len(p), nil
		}
		busy := first && c.machine.busy(len(c.out))
		c.mu.Unlock()
		if busy {
			c.dev.send(c, news{busy: true}) // from here on, whoever makes it busy sends it
		} else {
			<-c.writeLimit.wake
		}
		c.mu.Lock()
	}
}

func (c *Conn) writeError() error {
	switch {
	case c.closed:
		return net.ErrClosed
	case c.writeLimit.passed:
		return os.ErrDeadlineExceeded
	case c.machine.state == gone && c.machine.err != nil:
		return c.machine.err
	case c.machine.state == gone,
		c.machine.sentShut&shutdownSend != 0, c.machine.peerShut&shutdownRcv != 0:
		return unix.EPIPE
	}
	return nil
}

// CloseWrite tells the guest that nothing more will come; reading goes on.
func (c *Conn) CloseWrite() error {
	c.mu.Lock()
	var err error
	switch {
	case c.closed:
		err = net.ErrClosed
	case c.machine.state == gone && c.machine.err != nil:
		err = c.machine.err
	default:
		c.machine.shutdown(shutdownSend)
	}
	n := c.news(nothing)
	c.mu.Unlock()
	c.dev.send(c, n)
	if err != nil {
		return c.opError("close", err)
	}
	return nil
}

// Close ends the connection. What was written still reaches the guest; what was
// not read is lost.
func (c *Conn) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return c.opError("close", net.ErrClosed)
	}
	c.closed = true
	c.in = fifo{}
	v := c.machine.shutdown(shutdownBoth)
	c.readLimit.stop()
	c.writeLimit.stop()
	n := c.news(v)
	c.mu.Unlock()
	c.dev.send(c, n)
	return nil
}

// expire gives up waiting for the guest's RST.
func (c *Conn) expire() {
	c.change(func(m *machine) verdict {
		if m.state == closing {
			return m.fail(nil)
		}
		return nothing
	})
}

// change applies f to the connection and sends what comes of it.
func (c *Conn) change(f func(*machine) verdict) {
	c.mu.Lock()
	n := c.news(f(&c.machine))
	c.mu.Unlock()
	c.dev.send(c, n)
}

// receive applies a packet of the guest's, whose payload p holds.
func (c *Conn) receive(h *header, p *vhostuser.Chain) news {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.machine.receive(h)
	if v != deliver {
		return c.news(v)
	}
	c.in.fill(p, int(h.len))
	c.readLimit.nudge()
	return news{busy: c.machine.busy(len(c.out))}
}

// news is what a change of a connection means to the device.
type news struct {
	busy  bool // it has something to send
	gone  bool // it is to leave the table
	reset bool // the guest is to get a RST
}

// news wakes those who wait for a change, and reports what the device has to do. The
// caller holds c.mu.
func (c *Conn) news(v verdict) news {
	m := &c.machine
	if m.state != requesting && c.answered != nil {
		close(c.answered)
		c.answered = nil
	}
	if m.state == gone && !isClosed(c.ended) {
		close(c.ended)
	}
	switch {
	case m.state == closing && c.linger == nil:
		c.linger = time.AfterFunc(lingerTime, c.expire)
	case m.state == gone && c.linger != nil:
		c.linger.Stop()
	}
	c.readLimit.nudge()
	c.writeLimit.nudge()
	return news{busy: m.busy(len(c.out)), gone: m.state == gone, reset: v == answer}
}

// header is that of a packet to the guest, without what the packet says.
func (c *Conn) header() header {
	return header{
		srcCID: uint64(c.key.cid), srcPort: c.key.port,
		dstCID: uint64(c.remote.ContextID), dstPort: c.remote.Port, typ: typeStream,
	}
}

// emit puts up to turns packets into the guest's buffers. It returns whether more
// are due.
func (c *Conn) emit(q *vhostuser.Queue, chain *vhostuser.Chain, turns int) (more, starved bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.header()
	for range turns {
		if !c.machine.busy(len(c.out)) {
			return false, false, nil
		}
		if !q.Next(chain) {
			return true, true, nil
		}
		room, err := payloadRoom(chain)
		if err != nil {
			return false, false, err
		}
		c.machine.next(&h, len(c.out), room)
		writePacket(q, chain, &h, c.out[:h.len])
		c.out = c.out[h.len:]
		if h.len > 0 && len(c.out) == 0 {
			c.writeLimit.nudge()
		}
	}
	return c.machine.busy(len(c.out)), false, nil
}

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error { return c.setLimits(t, &c.readLimit, &c.writeLimit) }

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setLimits(t, &c.readLimit) }

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setLimits(t, &c.writeLimit) }

func (c *Conn) setLimits(t time.Time, limits ...*limit) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.opError("set", net.ErrClosed)
	}
	for _, l := range limits {
		l.set(t, &c.mu)
	}
	return nil
}

func (c *Conn) opError(op string, err error) error {
	if errno, ok := err.(unix.Errno); ok {
		err = os.NewSyscallError(op, errno)
	}
	if op == "set" {
		return &net.OpError{Op: op, Net: "vsock", Addr: &c.local, Err: err}
	}
	return &net.OpError{Op: op, Net: "vsock", Source: &c.local, Addr: &c.remote, Err: err}
}

// limit is a deadline and the means to wake the one who waits under it. The
// connection's lock guards it.
type limit struct {
	wake   chan struct{} // holds one wake-up
	timer  *time.Timer
	passed bool
}

func (l *limit) nudge() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *limit) set(t time.Time, mu *sync.Mutex) {
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	left := time.Until(t)
	l.passed = !t.IsZero() && left <= 0
	if l.passed {
		l.nudge()
	} else if !t.IsZero() {
		var timer *time.Timer
		timer = time.AfterFunc(left, func() {
			mu.Lock()
			defer mu.Unlock()
			if l.timer == timer {
				l.passed = true
				l.nudge()
			}
		})
		l.timer = timer
	}
}

// stop ends the deadline's timer and wakes the one who waits.
func (l *limit) stop() {
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	l.nudge()
}
