package vsock

import (
	"net"

	"golang.org/x/sys/unix"
)

// Backlog is how many connections wait in a listener; one more is refused.
const Backlog = 128

// listener queues connections until they are accepted.
type listener struct {
	s     *Switch
	addr  Addr
	queue chan Conn     // sends only under s.mu, so a full queue is seen for sure
	done  chan struct{} // closed by Close, under s.mu
}

// Listen takes connections to an address: the parent's (CID 3) or, for a console, one on CID 0. With a port of
// 0 or PortAny the switch chooses one of the parent's above 1023; those of consoles follow from CIDs. Accept returns a Conn.
//
// Errors are *net.OpError and wrap EADDRNOTAVAIL (a CID that is not in this process), EADDRINUSE or net.ErrClosed.
// Closing the listener resets the connections that wait in it; those accepted live on.
func (s *Switch) Listen(addr Addr) (net.Listener, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if addr.ContextID != CIDParent && addr.ContextID != CIDHypervisor {
		return nil, opError("listen", nil, &addr, unix.EADDRNOTAVAIL)
	}
	addr, err := s.bindLocked(addr)
	if err != nil {
		return nil, opError("listen", nil, &addr, err)
	}
	ln := &listener{s: s, addr: addr, queue: make(chan Conn, Backlog), done: make(chan struct{})}
	s.listeners[addr] = ln
	return ln, nil
}

// offer queues a connection, or returns ECONNREFUSED if the backlog is full. s.mu is held.
func (ln *listener) offer(c Conn) error {
	select {
	case ln.queue <- c:
		return nil
	default:
		return unix.ECONNREFUSED
	}
}

func (ln *listener) Accept() (net.Conn, error) {
	select {
	case <-ln.done:
	default:
		select {
		case c := <-ln.queue:
			return c, nil
		case <-ln.done:
		}
	}
	return nil, opError("accept", nil, &ln.addr, net.ErrClosed)
}

func (ln *listener) Close() error {
	ln.s.mu.Lock()
	if ln.s.listeners[ln.addr] != ln {
		ln.s.mu.Unlock()
		return opError("close", nil, &ln.addr, net.ErrClosed)
	}
	delete(ln.s.listeners, ln.addr)
	delete(ln.s.bound, ln.addr)
	close(ln.done)
	ln.s.mu.Unlock()
	for {
		select {
		case c := <-ln.queue:
			reset(c)
			c.Close()
		default:
			return nil
		}
	}
}

func (ln *listener) Addr() net.Addr { return &ln.addr }
