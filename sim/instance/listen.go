package instance

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/nesim/nesim/sim/vsock"
)

// keepTime is how long a kept port stays open when nobody accepts on it.
const keepTime = 5 * time.Second

// AcceptVsock listens on a port of the parent for one connection.
func (i *Instance) AcceptVsock(ctx context.Context, port uint32) (vsock.Conn, error) {
	listener, err := i.net.Listen(vsock.Addr{ContextID: vsock.CIDParent, Port: port})
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	defer stop()
	conn, err := listener.Accept()
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, err
	}
	return conn.(vsock.Conn), nil
}

// keptPort is a port of the parent that stays open between the connections that are accepted on it.
type keptPort struct {
	listener net.Listener
	conns    chan vsock.Conn
	dropped  chan struct{}

	// Guarded by Instance.mu.
	waiting int // calls of AcceptKept
	drop    *time.Timer
}

// AcceptKept is AcceptVsock for somebody who calls it again and again: between two calls, or while there are several,
// the port stays open, so that no connection is refused.
func (i *Instance) AcceptKept(ctx context.Context, port uint32) (vsock.Conn, error) {
	p, err := i.keep(port)
	if err != nil {
		return nil, err
	}
	defer i.leave(p)
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.dropped:
		return nil, errEnding
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// keep finds or opens a port, for one more call.
func (i *Instance) keep(port uint32) (*keptPort, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return nil, errEnding
	}
	p := i.kept[port]
	if p == nil {
		listener, err := i.net.Listen(vsock.Addr{ContextID: vsock.CIDParent, Port: port})
		if err != nil {
			return nil, err
		}
		p = &keptPort{listener: listener, conns: make(chan vsock.Conn), dropped: make(chan struct{})}
		p.drop = time.AfterFunc(keepTime, func() { i.dropPort(port, p) })
		if i.kept == nil {
			i.kept = make(map[uint32]*keptPort)
		}
		i.kept[port] = p
		i.ports.Go(p.accept)
	}
	p.waiting++
	p.drop.Stop()
	return p, nil
}

func (i *Instance) leave(p *keptPort) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if p.waiting--; p.waiting == 0 {
		p.drop.Reset(keepTime)
	}
}

// dropPort closes a port that nobody accepts on.
func (i *Instance) dropPort(port uint32, p *keptPort) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.kept[port] == p && p.waiting == 0 {
		delete(i.kept, port)
		p.close()
	}
}

// dropPorts closes them all; there will be no more.
func (i *Instance) dropPorts() {
	i.mu.Lock()
	for port, p := range i.kept {
		delete(i.kept, port)
		p.drop.Stop()
		p.close()
	}
	i.mu.Unlock()
	i.ports.Wait()
}

func (p *keptPort) close() {
	close(p.dropped)
	p.listener.Close()
}

// accept hands connections to those who wait for them.
func (p *keptPort) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return
		}
		select {
		case p.conns <- conn.(vsock.Conn):
		case <-p.dropped:
			conn.Close()
			return
		}
	}
}

var errEnding = errors.New("the daemon is ending")
