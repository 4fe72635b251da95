// Package parent is what the parent's programs do beside the NE driver: here, hearing an enclave's first heartbeat,
// by nitro-cli's rule (run-enclave; enclave_proc/resource_manager.rs and eif_loader of aws-nitro-enclaves-cli).
//
// The rule: listen on CID 3, port 9000, before the enclave is started; once it is, take one connection, read one byte,
// which must be 0xB7, send it back, close. nitro-cli can do that for one enclave at a time, since there is one port;
// [Heartbeats] shares the port among all enclaves that are being started, and tells them apart by their CIDs.
//
// Goroutines: while anybody expects a heartbeat, one goroutine accepts connections; the last Close waits for it.
// Locks: Heartbeats.turn guards listening, and is held while the listener is opened and closed; after it comes
// Heartbeats.mu, a leaf, which guards the connections that nobody has taken yet.
package parent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/nesim/nesim/internal/guestwire"
	"github.com/nesim/nesim/sim/vsock"
	"golang.org/x/sys/unix"
)

// Timeout is how long nitro-cli waits for the heartbeat of an enclave (calculate_necessary_timeout): 90 s for each
// 6 GiB of the image that were begun, and as much for each 100 GiB of memory. Both sizes are in bytes.
func Timeout(eifSize, memory uint64) time.Duration {
	const (
		unit = 90 * time.Second
		gib  = 1 << 30
		most = 1 << 20 // of each kind; more would overflow, and means for ever anyway
	)
	begun := func(n, per uint64) time.Duration { return time.Duration(min(max(n, 1)-1, most*per)/per + 1) }
	return (begun(eifSize, 6*gib) + begun(memory, 100*gib)) * unit
}

var (
	// ErrTimeout: the enclave sent no heartbeat in time.
	ErrTimeout = errors.New("time-out")
	// ErrEnded: the enclave ended before its heartbeat.
	ErrEnded = errors.New("the enclave ended")
	// ErrBadHeartbeat: the enclave connected, and sent something else or nothing.
	ErrBadHeartbeat = errors.New("bad heartbeat")
)

// Listener is the part of the vsock switch that Heartbeats needs.
type Listener interface {
	Listen(vsock.Addr) (net.Listener, error)
}

const (
	// maxParked bounds the connections that wait for somebody to ask for their CID.
	maxParked = 64
	// endedGrace is for a heartbeat that was sent, and not read yet, when the enclave ended.
	endedGrace = 100 * time.Millisecond
)

// Heartbeats hears the heartbeats of all enclaves of one parent. New makes one.
type Heartbeats struct {
	sw Listener

	turn     sync.Mutex
	expected int          // Expectations that are open
	listener net.Listener // while there are some
	accepts  sync.WaitGroup

	mu      sync.Mutex
	parked  map[uint32]net.Conn      // by CID: connections that nobody has asked for yet
	waiting map[uint32]chan net.Conn // by CID: those who have; room for one
}

// New returns Heartbeats on a switch. It does not listen yet: the port is taken only while heartbeats are expected,
// as by nitro-cli.
func New(sw Listener) *Heartbeats {
	return &Heartbeats{sw: sw, parked: map[uint32]net.Conn{}, waiting: map[uint32]chan net.Conn{}}
}

// Expect begins to listen for one more enclave. It comes before the enclave is started, so before its CID is known;
// what connects meanwhile is kept for Wait. Close the Expectation, whatever becomes of the enclave.
//
// The error is the switch's: EADDRINUSE if another program listens on the port.
func (h *Heartbeats) Expect() (*Expectation, error) {
	h.turn.Lock()
	defer h.turn.Unlock()
	if h.expected == 0 {
		ln, err := h.sw.Listen(vsock.Addr{ContextID: vsock.CIDParent, Port: guestwire.HeartbeatPort})
		if err != nil {
			return nil, fmt.Errorf("listen for the enclave's heartbeat: %w", err)
		}
		h.listener = ln
		h.accepts.Go(func() { h.acceptAll(ln) })
	}
	h.expected++
	return &Expectation{h: h}, nil
}

// acceptAll hands out what connects until the listener closes.
func (h *Heartbeats) acceptAll(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		h.arrive(c, c.RemoteAddr().(*vsock.Addr).ContextID)
	}
}

func (h *Heartbeats) arrive(c net.Conn, cid uint32) {
	h.mu.Lock()
	if w := h.waiting[cid]; w != nil {
		delete(h.waiting, cid) // before the next connection of this CID
		w <- c
		c = nil
	} else if old := h.parked[cid]; old != nil || len(h.parked) < maxParked {
		h.parked[cid], c = c, old
	}
	h.mu.Unlock()
	if c != nil {
		c.Close()
	}
}

// Expectation is one enclave's heartbeat to come. It is for one goroutine.
type Expectation struct {
	h      *Heartbeats
	closed bool
}

// Wait waits for the heartbeat of the enclave with the CID and answers it. ended, which may be nil, tells by closing
// that the enclave is no more. The error is one line and wraps ErrTimeout, ErrEnded, ErrBadHeartbeat or ctx's cause.
func (e *Expectation) Wait(ctx context.Context, cid uint32, timeout time.Duration, ended <-chan struct{}) error {
	waiting, stop := context.WithTimeoutCause(ctx, timeout, ErrTimeout)
	defer stop()
	waiting, end := context.WithCancelCause(waiting)
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-ended:
			select {
			case <-time.After(endedGrace):
				end(ErrEnded)
			case <-waiting.Done():
			}
		case <-waiting.Done():
		}
	})
	err := e.hear(waiting, cid)
	why := context.Cause(waiting)
	end(nil)
	watch.Wait()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrBadHeartbeat):
		return fmt.Errorf("the enclave with CID %d, on port %d: %w", cid, guestwire.HeartbeatPort, err)
	case errors.Is(why, ErrTimeout):
		return fmt.Errorf("no heartbeat from the enclave with CID %d on port %d within %v: %w", cid, guestwire.HeartbeatPort, timeout, why)
	case why != nil:
		return fmt.Errorf("no heartbeat from the enclave with CID %d: %w", cid, why)
	case isClosed(ended):
		return fmt.Errorf("no heartbeat from the enclave with CID %d: %w", cid, ErrEnded)
	default:
		return fmt.Errorf("the enclave with CID %d, on port %d: %w: %w", cid, guestwire.HeartbeatPort, ErrBadHeartbeat, err)
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// hear takes the CID's connection and the heartbeat on it.
func (e *Expectation) hear(ctx context.Context, cid uint32) error {
	for {
		c, parked, err := e.h.take(ctx, cid)
		if err != nil {
			return err
		}
		err = answer(ctx, c)
		if parked && errors.Is(err, unix.ECONNRESET) {
			continue // it may be left from an earlier enclave with this CID
		}
		return err
	}
}

// take returns the CID's connection, the parked one or the next.
func (h *Heartbeats) take(ctx context.Context, cid uint32) (c net.Conn, parked bool, err error) {
	h.mu.Lock()
	if c := h.parked[cid]; c != nil {
		delete(h.parked, cid)
		h.mu.Unlock()
		return c, true, nil
	}
	if h.waiting[cid] != nil {
		h.mu.Unlock()
		return nil, false, errors.New("somebody else waits for it already")
	}
	w := make(chan net.Conn, 1)
	h.waiting[cid] = w
	h.mu.Unlock()
	select {
	case c := <-w:
		return c, false, nil
	case <-ctx.Done():
	}
	h.mu.Lock()
	if h.waiting[cid] == w {
		delete(h.waiting, cid)
	}
	h.mu.Unlock()
	select {
	case c := <-w: // it came at the same moment
		c.Close()
	default:
	}
	return nil, false, context.Cause(ctx)
}

// answer reads the heartbeat, sends it back and closes.
func answer(ctx context.Context, c net.Conn) error {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	var b [1]byte
	if _, err := c.Read(b[:]); err != nil {
		if err == io.EOF {
			return errors.New("it closed the connection before")
		}
		return err
	}
	if b[0] != guestwire.Heartbeat {
		return fmt.Errorf("%w: it sent 0x%02x, not 0x%02x", ErrBadHeartbeat, b[0], guestwire.Heartbeat)
	}
	_, err := c.Write(b[:])
	return err
}

// Close ends the expectation. The last one gives the port free and closes what nobody asked for.
func (e *Expectation) Close() {
	h := e.h
	h.turn.Lock()
	defer h.turn.Unlock()
	if e.closed {
		return
	}
	e.closed = true
	if h.expected--; h.expected > 0 {
		return
	}
	h.listener.Close()
	h.accepts.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	for cid, c := range h.parked {
		delete(h.parked, cid)
		c.Close()
	}
}
