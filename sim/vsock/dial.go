package vsock

import (
	"context"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// Dial connects src to dst. With a src.Port of 0 or PortAny the switch chooses a free port above 1023. An enclave in
// this process (a scripted one) dials as its own, attached CID.
//
// Errors are *net.OpError and wrap ECONNREFUSED (nobody listens, or the backlog is full), EHOSTUNREACH (no such
// enclave), ENETUNREACH (src may not reach dst), EADDRNOTAVAIL (src is not attached), EADDRINUSE (src is taken),
// net.ErrClosed, ctx's error, or what the endpoint returned.
func (s *Switch) Dial(ctx context.Context, src, dst Addr) (Conn, error) {
	src, err := s.bind(src)
	if err != nil {
		return nil, opError("dial", &src, &dst, err)
	}
	l, err := s.dial(ctx, src, dst)
	if err != nil {
		s.unbind(src)
		return nil, opError("dial", &src, &dst, err)
	}
	return l, nil
}

// dial connects from src, which is bound; the link's Close unbinds it.
func (s *Switch) dial(ctx context.Context, src, dst Addr) (*link, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	if err := s.admit(src.ContextID, dst.ContextID); err != nil {
		s.mu.Unlock()
		return nil, err
	}
	if ln := s.listeners[dst]; ln != nil {
		defer s.mu.Unlock()
		near, far := Pipe(src, dst)
		if err := ln.offer(far); err != nil {
			return nil, err
		}
		return s.link(near, src.ContextID, &src), nil
	}
	g, err := s.enter(dst.ContextID)
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return s.dialGuest(ctx, g, src, dst, &src)
}

// Connect hands the switch a connection that a guest has opened: its RemoteAddr is the guest's own CID (the endpoint
// answers for that) and port, its LocalAddr what the guest wants to reach. When Connect returns nil, the connection is
// the listener's; on an error, which is as Dial's, it is still the caller's, to reset.
func (s *Switch) Connect(ctx context.Context, c Conn) error {
	src, dst, err := ends(c)
	if err != nil {
		return err
	}
	if err := s.connect(ctx, c, src, dst); err != nil {
		return opError("dial", &src, &dst, err)
	}
	return nil
}

func (s *Switch) connect(ctx context.Context, c Conn, src, dst Addr) error {
	s.mu.Lock()
	if err := s.admit(src.ContextID, dst.ContextID); err != nil {
		s.mu.Unlock()
		return err
	}
	if s.guests[src.ContextID] == nil {
		s.mu.Unlock()
		return unix.EADDRNOTAVAIL
	}
	if ln := s.listeners[dst]; ln != nil {
		defer s.mu.Unlock()
		l := s.link(c, src.ContextID, nil)
		if err := ln.offer(l); err != nil {
			delete(s.links, l)
			return err
		}
		return nil
	}
	g, err := s.enter(dst.ContextID)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	far, err := s.dialGuest(ctx, g, src, dst, nil)
	if err != nil {
		return err
	}
	if !s.join(c, far, src.ContextID) {
		far.Reset()
		far.Close()
		return unix.ECONNRESET
	}
	return nil
}

// join copies between two guests' connections, in a goroutine of its own, until both are closed. It returns false if
// the guest that opened the first one has gone.
func (s *Switch) join(c Conn, far *link, cid uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.guests[cid] == nil {
		return false
	}
	near := s.link(c, cid, nil)
	s.joins.Go(func() { Splice(s.ctx, near, far) })
	return true
}

// admit reports whether one CID may open connections to another. s.mu is held.
func (s *Switch) admit(src, dst uint32) error {
	switch {
	case s.closed:
		return net.ErrClosed
	case src == CIDParent && (dst == CIDHypervisor || dst == CIDParent || isEnclave(dst)):
		return nil
	case isEnclave(src) && s.guests[src] == nil:
		return unix.EADDRNOTAVAIL
	case isEnclave(src) && dst == CIDParent:
		return nil
	default:
		return unix.ENETUNREACH
	}
}

// enter finds the guest and counts one more dial into it; dialGuest must follow. s.mu is held.
func (s *Switch) enter(cid uint32) (*guest, error) {
	g := s.guests[cid]
	switch {
	case g != nil:
		g.dials.Add(1)
		return g, nil
	case isEnclave(cid):
		return nil, unix.EHOSTUNREACH
	default:
		return nil, unix.ECONNREFUSED
	}
}

// dialGuest dials into a guest that enter returned. bound is what the link's Close unbinds.
func (s *Switch) dialGuest(ctx context.Context, g *guest, src, dst Addr, bound *Addr) (*link, error) {
	defer g.dials.Done() // after the link is made, so that Detach finds it
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(g.ctx, cancel)()
	c, err := g.Dial(ctx, src, dst.Port)
	switch {
	case err == nil:
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.link(c, dst.ContextID, bound), nil
	case s.ctx.Err() != nil:
		return nil, net.ErrClosed
	case g.ctx.Err() != nil:
		return nil, unix.ECONNRESET // the guest ended meanwhile
	default:
		return nil, err
	}
}

// bind takes a local address, choosing the port if it is 0 or PortAny.
func (s *Switch) bind(a Addr) (Addr, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bindLocked(a)
}

func (s *Switch) bindLocked(a Addr) (Addr, error) {
	if s.closed {
		return a, net.ErrClosed
	}
	if (a.Port == 0 || a.Port == PortAny) && a.ContextID != CIDHypervisor {
		for range len(s.bound) + 1 {
			a.Port = s.nextPort
			if s.nextPort++; s.nextPort == PortAny {
				s.nextPort = lastReservedPort + 1
			}
			if _, taken := s.bound[a]; !taken {
				break
			}
		}
	}
	if _, taken := s.bound[a]; taken {
		return a, unix.EADDRINUSE
	}
	s.bound[a] = struct{}{}
	return a, nil
}

func (s *Switch) unbind(a Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.bound, a)
}

// ends are the addresses of a connection that a guest opened.
func ends(c Conn) (src, dst Addr, err error) {
	r, ok1 := c.RemoteAddr().(*Addr)
	l, ok2 := c.LocalAddr().(*Addr)
	if !ok1 || !ok2 {
		return src, dst, fmt.Errorf("connect %v to %v: not vsock addresses: %w", c.RemoteAddr(), c.LocalAddr(), unix.EAFNOSUPPORT)
	}
	return *r, *l, nil
}
