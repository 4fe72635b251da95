package vsock

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// lingerTime is how long what a peer sent before it hung up may take to be written to the other, which perhaps reads
// nothing: what is left then is lost. A guest under TCG gets its time.
const lingerTime = 30 * time.Second

// Splice copies both ways between a and b until both directions have ended, then closes both. The end of one direction is
// passed on by CloseWrite, and the other goes on: half a close stays half. A peer that hangs up, which see HungUp, ends
// both: what it sent before is delivered, and then the other's connection is closed in full. A failure ends both at once
// (by Reset, where a connection has it), and is returned; so does ctx, whose cause is then returned.
//
// When the reader of a direction has gone (EPIPE), only that direction ends: what the reader sent before is still
// delivered.
func Splice(ctx context.Context, a, b Conn) error { return splice(ctx, a, b, lingerTime) }

func splice(ctx context.Context, a, b Conn, linger time.Duration) error {
	s := &spliced{a: a, b: b}
	stop := context.AfterFunc(ctx, func() { s.fail(context.Cause(ctx)) })
	watching, unwatch := context.WithCancel(context.Background())
	var watches, copies sync.WaitGroup
	watches.Go(func() { s.watch(watching, a, b, linger) })
	watches.Go(func() { s.watch(watching, b, a, linger) })
	copies.Go(func() { s.copy(a, b) })
	s.copy(b, a)
	copies.Wait()
	stop()
	s.failed.Do(func() { // waits for a failure that is being dealt with
		a.Close()
		b.Close()
	})
	unwatch()
	watches.Wait()
	return s.err
}

// spliced are two connections between which is copied.
type spliced struct {
	a, b         Conn
	aGone, bGone atomic.Bool // they have hung up
	failed       sync.Once
	err          error
}

func (s *spliced) hungUp(c Conn) *atomic.Bool {
	if c == s.a {
		return &s.aGone
	}
	return &s.bGone
}

// watch waits until c hangs up: then nothing more is read for it, and what it sent must be written in time.
func (s *spliced) watch(ctx context.Context, c, other Conn, linger time.Duration) {
	if !HungUp(ctx, c) {
		return
	}
	s.hungUp(c).Store(true)
	_ = other.SetWriteDeadline(time.Now().Add(linger))
	_ = other.SetReadDeadline(time.Unix(1, 0)) // long past
}

func (s *spliced) fail(err error) {
	s.failed.Do(func() {
		s.err = err
		reset(s.a)
		reset(s.b)
		s.a.Close()
		s.b.Close()
	})
}

// copy copies one direction and passes its end on.
func (s *spliced) copy(dst, src Conn) {
	_, err := io.Copy(dst, src)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded): // set by watch
		if !s.hungUp(dst).Load() {
			s.fail(unix.ECONNRESET) // dst has not taken in time what src sent before it hung up
		}
		return
	case err != nil && !errors.Is(err, unix.EPIPE):
		s.fail(err)
		return
	}
	if err := dst.CloseWrite(); err != nil && !gone(err) {
		s.fail(err)
	}
}

// gone reports that a connection's peer has already left, so that there is nobody to send the end to.
func gone(err error) bool {
	return errors.Is(err, net.ErrClosed) || errors.Is(err, unix.ENOTCONN) ||
		errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET)
}
