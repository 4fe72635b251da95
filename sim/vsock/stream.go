package vsock

import (
	"bytes"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// streamBuffer is how many bytes each direction of a stream holds before a writer waits.
const streamBuffer = 64 << 10

// Stream is one end of an in-process connection. It is safe for concurrent use.
type Stream struct {
	local, remote Addr
	in, out       *half
	gone          *signal // the peer has closed or was reset
	left          *signal // so has this end, as its peer is to know
}

// signal is a channel that is closed once.
type signal struct {
	once sync.Once
	c    chan struct{}
}

func newSignal() *signal { return &signal{c: make(chan struct{})} }

func (s *signal) raise() { s.once.Do(func() { close(s.c) }) }

// Pipe returns the two ends of a new connection between addresses a and b; each end's LocalAddr is its own.
func Pipe(a, b Addr) (*Stream, *Stream) {
	ab, ba := newHalf(), newHalf()
	aGone, bGone := newSignal(), newSignal()
	return &Stream{a, b, ba, ab, bGone, aGone}, &Stream{b, a, ab, ba, aGone, bGone}
}

// Gone is closed when the peer has called Close, or the connection was reset.
func (c *Stream) Gone() <-chan struct{} { return c.gone.c }

// Read reads what has arrived, waiting for the first byte. It returns io.EOF after the peer's CloseWrite or Close,
// or a *net.OpError that wraps ECONNRESET, os.ErrDeadlineExceeded or net.ErrClosed.
func (c *Stream) Read(p []byte) (int, error) {
	n, err := c.in.read(p)
	if err == io.EOF {
		return n, err
	}
	return n, opError("read", &c.local, &c.remote, err)
}

// Write writes all of p, waiting while the buffer is full. Its errors are *net.OpError and wrap EPIPE (the peer has
// closed, or this side has called CloseWrite), ECONNRESET, os.ErrDeadlineExceeded or net.ErrClosed.
func (c *Stream) Write(p []byte) (int, error) {
	n, err := c.out.write(p)
	return n, opError("write", &c.local, &c.remote, err)
}

// CloseWrite lets the peer read io.EOF after what was written; reading goes on.
func (c *Stream) CloseWrite() error {
	c.out.update((*half).end)
	return nil
}

// Close closes both directions: the peer reads what was written, then io.EOF, and its writes return EPIPE.
func (c *Stream) Close() error {
	c.out.update(func(h *half) { h.end(); h.writerGone = true })
	c.in.update(func(h *half) { h.readerGone, h.buf = true, bytes.Buffer{} })
	c.left.raise()
	return nil
}

// Reset ends the connection for both sides: they can read what has arrived, then get ECONNRESET.
func (c *Stream) Reset() error {
	for _, h := range []*half{c.in, c.out} { // both before anybody is woken, who might close one that is not yet reset
		h.mu.Lock()
		h.reset = true
		h.mu.Unlock()
	}
	c.in.update(func(*half) {})
	c.out.update(func(*half) {})
	c.left.raise()
	c.gone.raise()
	return nil
}

// LocalAddr is this end's *Addr.
func (c *Stream) LocalAddr() net.Addr { return &c.local }

// RemoteAddr is the other end's *Addr.
func (c *Stream) RemoteAddr() net.Addr { return &c.remote }

// SetDeadline sets both deadlines; a zero time is none.
func (c *Stream) SetDeadline(t time.Time) error {
	c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

// SetReadDeadline bounds Read.
func (c *Stream) SetReadDeadline(t time.Time) error {
	c.in.update(func(h *half) { h.readBy.set(h, t) })
	return nil
}

// SetWriteDeadline bounds Write.
func (c *Stream) SetWriteDeadline(t time.Time) error {
	c.out.update(func(h *half) { h.writeBy.set(h, t) })
	return nil
}

// half is one direction of a stream.
type half struct {
	mu      sync.Mutex
	changed *sync.Cond // anything below, or a deadline passed
	writing sync.Mutex // one Write at a time, so that their bytes do not mix; taken before mu

	buf                    bytes.Buffer
	eof                    bool // no more writes
	reset                  bool
	readerGone, writerGone bool
	readBy, writeBy        deadline
}

func newHalf() *half {
	h := &half{}
	h.changed = sync.NewCond(&h.mu)
	return h
}

// end lets the reader meet the end of the stream, unless a reset came first. h.mu is held.
func (h *half) end() { h.eof = h.eof || !h.reset }

func (h *half) update(f func(*half)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f(h)
	if h.readerGone {
		h.readBy.stop()
	}
	if h.writerGone {
		h.writeBy.stop()
	}
	h.changed.Broadcast()
}

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.readerGone:
			return 0, net.ErrClosed
		case h.readBy.passed():
			return 0, os.ErrDeadlineExceeded
		case h.buf.Len() > 0 || len(p) == 0:
			n, _ := h.buf.Read(p)
			h.changed.Broadcast()
			return n, nil
		case h.eof:
			return 0, io.EOF
		case h.reset:
			return 0, unix.ECONNRESET
		}
		h.changed.Wait()
	}
}

func (h *half) write(p []byte) (n int, err error) {
	h.writing.Lock()
	defer h.writing.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.writerGone:
			return n, net.ErrClosed
		case h.reset && !h.eof:
			return n, unix.ECONNRESET
		case h.eof || h.readerGone:
			return n, unix.EPIPE
		case h.writeBy.passed():
			return n, os.ErrDeadlineExceeded
		}
		m := min(streamBuffer-h.buf.Len(), len(p)-n)
		h.buf.Write(p[n : n+m])
		if n += m; m > 0 {
			h.changed.Broadcast()
		}
		if n == len(p) {
			return n, nil
		}
		h.changed.Wait()
	}
}

// deadline is a time after which waiting ends. The half's lock guards it.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) set(h *half, t time.Time) {
	d.stop()
	d.at = t
	if wait := time.Until(t); !t.IsZero() && wait > 0 {
		d.timer = time.AfterFunc(wait, func() { h.update(func(*half) {}) })
	}
}

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}

func (d *deadline) passed() bool { return !d.at.IsZero() && time.Until(d.at) <= 0 }
