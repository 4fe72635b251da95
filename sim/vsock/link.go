package vsock

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// link is a connection that the switch remembers until it is closed.
type link struct {
	Conn
	s     *Switch
	order uint64 // of the links' making
	guest uint32 // resetting is due when this CID detaches
	bound *Addr  // local address to give free at Close, if any
	reset atomic.Bool
	close sync.Once
}

// link remembers a connection. s.mu is held.
func (s *Switch) link(c Conn, guest uint32, bound *Addr) *link {
	s.linked++
	l := &link{Conn: c, s: s, order: s.linked, guest: guest, bound: bound}
	s.links[l] = struct{}{}
	return l
}

func (l *link) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	return n, l.why("read", err)
}

func (l *link) Write(p []byte) (int, error) {
	n, err := l.Conn.Write(p)
	return n, l.why("write", err)
}

// Underlying is the connection whose hang-up is the link's.
func (l *link) Underlying() Conn { return l.Conn }

// why makes an error after Reset tell of the reset, however the connection was ended.
func (l *link) why(op string, err error) error {
	if err == nil || !l.reset.Load() || errors.Is(err, unix.ECONNRESET) || err == io.EOF {
		return err
	}
	src, _ := l.LocalAddr().(*Addr)
	dst, _ := l.RemoteAddr().(*Addr)
	return opError(op, src, dst, unix.ECONNRESET)
}

// Close closes the connection and gives its local port free.
func (l *link) Close() error {
	err := l.Conn.Close()
	l.close.Do(func() {
		l.s.mu.Lock()
		defer l.s.mu.Unlock()
		delete(l.s.links, l)
		if l.bound != nil {
			delete(l.s.bound, *l.bound)
		}
	})
	return err
}

// Reset ends the connection in both directions; its owner has still to close it.
func (l *link) Reset() error {
	l.reset.Store(true)
	return reset(l.Conn)
}

// reset resets a connection if it knows how, or closes it.
func reset(c Conn) error {
	if r, ok := c.(interface{ Reset() error }); ok {
		return r.Reset()
	}
	return c.Close()
}
