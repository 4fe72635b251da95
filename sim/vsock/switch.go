// Package vsock is the switch between context ids: it joins the parent (CID 3), the enclaves, and the
// hypervisor's own ports (CID 0, where the console of a debug-mode enclave is).
//
// Parties in this process listen and dial on the [Switch] directly and get in-process streams. An enclave is an
// [Endpoint], attached under its CID: the switch dials into it with [Endpoint.Dial], and the endpoint hands
// connections that its guest opens to [Switch.Connect]. A primary VM that is a guest itself attaches as CID 3 in the
// same way; in-process listeners on CID 3 then come first, port by port.
//
// Who reaches whom, as on Nitro: an enclave reaches the parent only; the parent reaches enclaves and consoles.
//
// Ownership: a connection belongs to whom it was handed (the caller of Dial, the caller of Accept). Until that party
// closes it, the switch remembers it, so that Detach and Close can reset it. The only goroutines are those that join
// two guests' connections; Close waits for them.
//
// Locks: Switch.mu guards the switch's maps and the listeners' backlogs; no endpoint is called with it held. It comes
// before a stream's locks. A stream has one lock for each direction, never held together.
package vsock

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"sync"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"
)

// Addr is a vsock address: a context id and a port.
type Addr = vsock.Addr

// Well-known context ids and ports.
const (
	CIDHypervisor uint32 = 0          // VMADDR_CID_HYPERVISOR (linux/vm_sockets.h): consoles are here
	CIDHost       uint32 = 2          // VMADDR_CID_HOST (linux/vm_sockets.h)
	CIDParent     uint32 = 3          // NE_PARENT_VM_CID (ne_misc_dev.c): the primary VM
	CIDAny        uint32 = 0xffffffff // VMADDR_CID_ANY (linux/vm_sockets.h)
	PortAny       uint32 = 0xffffffff // VMADDR_PORT_ANY (linux/vm_sockets.h): let the switch choose

	// ConsolePortBase plus an enclave's CID is the port of its console on CIDHypervisor (CID_TO_CONSOLE_PORT_OFFSET of
	// nitro-cli). The sum is of 32 bits, so that CIDs close to 2^32 have small ports, 0 and PortAny among them; no two CIDs
	// have the same.
	ConsolePortBase uint32 = 10000

	// lastReservedPort is LAST_RESERVED_PORT of Linux' af_vsock.c: chosen ports lie above it.
	lastReservedPort uint32 = 1023
)

// Conn is a stream between two addresses. LocalAddr and RemoteAddr are *Addr.
//
// A Conn that also has a method Reset() error is ended with it when its guest goes away: what has arrived stays
// readable, then reads return ECONNRESET. Any other is closed.
type Conn interface {
	net.Conn
	CloseWrite() error
}

// Endpoint is a party reached through a virtual device, or a scripted one: an enclave, or a primary VM.
type Endpoint interface {
	// Dial opens a connection from src to the endpoint's port. It returns soon after ctx is done.
	Dial(ctx context.Context, src Addr, port uint32) (Conn, error)
}

// EndpointFunc is an Endpoint made of a function.
type EndpointFunc func(ctx context.Context, src Addr, port uint32) (Conn, error)

// Dial calls f.
func (f EndpointFunc) Dial(ctx context.Context, src Addr, port uint32) (Conn, error) {
	return f(ctx, src, port)
}

// Switch connects context ids. Make one with New; Close ends it.
type Switch struct {
	ctx    context.Context // done when the switch closes
	cancel context.CancelFunc
	joins  sync.WaitGroup // added to under mu, while open

	mu        sync.Mutex
	closed    bool
	nextPort  uint32
	bound     map[Addr]struct{} // local addresses in use: listeners' and those of dialled connections
	listeners map[Addr]*listener
	guests    map[uint32]*guest
	links     map[*link]struct{}
	linked    uint64 // links made
}

// guest is an attached endpoint.
type guest struct {
	Endpoint
	ctx    context.Context // done at Detach
	cancel context.CancelFunc
	dials  sync.WaitGroup // dials under way; added to under Switch.mu, while attached
}

// New returns a switch with nobody on it.
func New() *Switch {
	ctx, cancel := context.WithCancel(context.Background())
	return &Switch{
		ctx: ctx, cancel: cancel,
		nextPort:  lastReservedPort + 1,
		bound:     map[Addr]struct{}{},
		listeners: map[Addr]*listener{},
		guests:    map[uint32]*guest{},
		links:     map[*link]struct{}{},
	}
}

// Attach puts an endpoint on the switch under its CID: an enclave's, or 3 for a primary VM that is a guest.
// The error wraps EADDRNOTAVAIL if the CID can be nobody's, EADDRINUSE if it is taken, or net.ErrClosed.
func (s *Switch) Attach(cid uint32, e Endpoint) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	switch {
	case s.closed:
		err = net.ErrClosed
	case !isEnclave(cid) && cid != CIDParent:
		err = unix.EADDRNOTAVAIL
	case s.guests[cid] != nil:
		err = unix.EADDRINUSE
	default:
		g := &guest{Endpoint: e}
		g.ctx, g.cancel = context.WithCancel(s.ctx)
		s.guests[cid] = g
		return nil
	}
	return fmt.Errorf("attach to the vsock switch as CID %d: %w", cid, err)
}

// Detach takes the CID's endpoint off the switch: dials into it end, and every connection with it is reset.
// It returns when that is done. A CID that is not attached is no error.
func (s *Switch) Detach(cid uint32) {
	s.mu.Lock()
	g := s.guests[cid]
	delete(s.guests, cid)
	s.mu.Unlock()
	if g == nil {
		return
	}
	g.cancel()
	g.dials.Wait()
	s.reset(func(l *link) bool { return l.guest == cid })
}

// Close closes all listeners, detaches everybody, resets every connection and waits until all of that is done.
func (s *Switch) Close() error {
	s.mu.Lock()
	s.closed = true
	var lns []*listener
	for _, ln := range s.listeners {
		lns = append(lns, ln)
	}
	var cids []uint32
	for cid := range s.guests {
		cids = append(cids, cid)
	}
	s.mu.Unlock()

	s.cancel()
	for _, ln := range lns {
		ln.Close()
	}
	for _, cid := range cids {
		s.Detach(cid)
	}
	s.reset(func(*link) bool { return true })
	s.joins.Wait()
	return nil
}

// reset resets the connections that match, the oldest first.
func (s *Switch) reset(match func(*link) bool) {
	s.mu.Lock()
	var lost []*link
	for l := range s.links {
		if match(l) {
			lost = append(lost, l)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(lost, func(a, b *link) int { return cmp.Compare(a.order, b.order) })
	for _, l := range lost {
		l.Reset()
	}
}

// isEnclave reports whether the CID can be an enclave's.
func isEnclave(cid uint32) bool { return cid > CIDParent && cid != CIDAny }

// opError is err as package net reports it; a *net.OpError stays as it is.
func opError(op string, src, dst *Addr, err error) error {
	if _, ok := err.(*net.OpError); ok || err == nil {
		return err
	}
	e := &net.OpError{Op: op, Net: "vsock", Err: err}
	if src != nil {
		e.Source = src
	}
	if dst != nil {
		e.Addr = dst
	}
	return e
}
