// Package hybrid gives programs that know no AF_VSOCK a vsock by way of UNIX sockets, one for each guest, as Firecracker
// does: "hybrid vsock", of which its docs/vsock.md tells, and which cloud-hypervisor speaks too.
//
// A program that wants to reach a guest connects to the guest's socket and sends "CONNECT <port>\n". When the guest has
// accepted, it reads "OK <port>\n", where the port is its own end's, and from then on the connection is the vsock's; when
// the guest has not, it is closed. A program that wants to be reached at a port listens on a socket of its own, with a name
// that ends in _<port>; where it does not, the guest's connection is reset.
//
// One thing differs. Firecracker learns whether a program listens before it answers the guest; here the guest's connection
// is accepted, and then reset, since the switch's listeners do not refuse.
//
// Goroutines: a [Host] has two for each socket and each port, and one or two for each connection; Host.Close waits for all
// of them. There are no locks.
package hybrid

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/internal/private"
	"github.com/nesim/nesim/sim/vsock"
)

// Net is the part of the vsock switch that a Host needs.
type Net interface {
	Dial(ctx context.Context, src, dst vsock.Addr) (vsock.Conn, error)
	Listen(vsock.Addr) (net.Listener, error)
}

const (
	// patience is how long a program has for its request, and a guest for its answer: ten times what Firecracker gives a
	// guest (CONN_REQUEST_TIMEOUT_MS), because guests run under TCG here.
	patience = 20 * time.Second
	// grace is how long connections have to end by themselves when the host closes (CONN_SHUTDOWN_TIMEOUT_MS of
	// Firecracker).
	grace = 2 * time.Second
	// pause is between two tries to accept, where that fails.
	pause = time.Second
	// sunPathMax is what a socket address holds without its closing zero (sun_path in linux/un.h).
	sunPathMax = 107
)

// Host is the parent as programs on the host see it. New makes one. Serve and Forward come before Close, and not at the
// same time.
type Host struct {
	net  Net
	tell func(text string)

	listening context.Context // done when nothing more is accepted
	deaf      context.CancelFunc
	lasting   context.Context // done when connections must end
	cut       context.CancelFunc
	work      sync.WaitGroup

	patience, grace time.Duration
}

// New returns a host on a switch. Its connections are reset when ctx ends; Close it all the same. tell gets a line for
// people about each connection that does not come about.
func New(ctx context.Context, net Net, tell func(text string)) *Host {
	h := &Host{net: net, tell: tell, patience: patience, grace: grace}
	h.lasting, h.cut = context.WithCancel(ctx)
	h.listening, h.deaf = context.WithCancel(h.lasting)
	return h
}

// Close ends everything and waits for it. First it lets connections end by themselves for a little while: what a program
// has sent before it exited still arrives. Those that remain are reset.
func (h *Host) Close() {
	h.deaf()
	late := time.AfterFunc(h.grace, h.cut)
	h.work.Wait()
	late.Stop()
	h.cut()
}

// Serve makes a socket at path, of this user alone, on which programs connect to the ports of a guest. Its folder should
// be private too. It is removed by Close.
func (h *Host) Serve(path string, cid uint32) error {
	if err := check(path); err != nil {
		return err
	}
	l, err := private.Listen(path)
	if err != nil {
		return fmt.Errorf("make the socket of CID %d: %w", cid, err)
	}
	h.accept(l, func(program vsock.Conn) { h.connect(program, cid) })
	return nil
}

// Forward takes the connections of guests to a port of the parent, and leads each to the socket at Path(prefix, port), on
// which a program listens.
func (h *Host) Forward(prefix string, port uint32) error {
	path := Path(prefix, port)
	if err := check(path); err != nil {
		return err
	}
	if port == 0 || port == vsock.PortAny {
		return fmt.Errorf("nobody can connect to port %d: %w", port, unix.EINVAL)
	}
	l, err := h.net.Listen(vsock.Addr{ContextID: vsock.CIDParent, Port: port})
	if err != nil {
		return err
	}
	h.accept(l, func(guest vsock.Conn) { h.forward(guest, path) })
	return nil
}

// Path is the socket on which a program listens that is to be reached at a port.
func Path(prefix string, port uint32) string { return fmt.Sprintf("%s_%d", prefix, port) }

func check(path string) error {
	if len(path) > sunPathMax {
		return fmt.Errorf("the socket path %s has %d bytes, more than %d: choose a shorter folder", path, len(path), sunPathMax)
	}
	return nil
}

// accept hands what connects to take, each in a goroutine of its own, until the host or the listener closes.
func (h *Host) accept(l net.Listener, take func(vsock.Conn)) {
	h.work.Go(func() {
		<-h.listening.Done()
		l.Close()
	})
	h.work.Go(func() {
		for {
			c, err := l.Accept()
			switch {
			case err == nil:
				h.work.Go(func() { take(c.(vsock.Conn)) }) // a *net.UnixConn is one
			case errors.Is(err, net.ErrClosed):
				return
			default: // too many open files, for one: some will be closed
				h.tell(err.Error())
				select {
				case <-time.After(pause):
				case <-h.listening.Done():
				}
			}
		}
	})
}

// connect joins a program to the guest's port that it asks for.
func (h *Host) connect(program vsock.Conn, cid uint32) {
	guest, err := h.dial(program, cid)
	if err != nil {
		h.tell(fmt.Sprintf("a program's connection to CID %d fails: %v", cid, err))
		program.Close()
		return
	}
	_ = vsock.Splice(h.lasting, program, guest) // who broke it off knows
}

// dial reads a program's request, connects to the guest, and tells the program.
func (h *Host) dial(program vsock.Conn, cid uint32) (vsock.Conn, error) {
	defer context.AfterFunc(h.lasting, func() { program.Close() })()
	_ = program.SetReadDeadline(time.Now().Add(h.patience))
	port, err := readRequest(program)
	if err != nil {
		return nil, err
	}
	_ = program.SetReadDeadline(time.Time{})

	ctx, cancel := context.WithTimeout(h.lasting, h.patience)
	defer cancel()
	guest, err := h.net.Dial(ctx, vsock.Addr{ContextID: vsock.CIDParent, Port: vsock.PortAny}, vsock.Addr{ContextID: cid, Port: port})
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(program, "OK %d\n", guest.LocalAddr().(*vsock.Addr).Port); err != nil {
		reset(guest)
		return nil, err
	}
	return guest, nil
}

// forward joins a guest's connection to the program that listens at path.
func (h *Host) forward(guest vsock.Conn, path string) {
	program, err := private.Dial(h.lasting, path)
	if err != nil {
		h.tell(fmt.Sprintf("the connection %v to %v is reset, as no program listens: %v", guest.RemoteAddr(), guest.LocalAddr(), err))
		reset(guest)
		return
	}
	_ = vsock.Splice(h.lasting, guest, program) // who broke it off knows
}

// reset resets a connection, if it knows how, and closes it.
func reset(c vsock.Conn) {
	if r, ok := c.(interface{ Reset() error }); ok {
		_ = r.Reset()
	}
	c.Close()
}
