package vsock

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// Splice copies both ways between a and b until both directions have ended, then closes both. The end of one
// direction is passed on by CloseWrite, and the other goes on. A failure ends both at once (by Reset, where a
// connection has it), and is returned; so does ctx, whose cause is then returned.
//
// When the reader of a direction has gone (EPIPE), only that direction ends: what the reader sent before is still
// delivered.
func Splice(ctx context.Context, a, b Conn) error {
	var (
		failed sync.Once
		err    error
		wg     sync.WaitGroup
	)
	fail := func(e error) {
		failed.Do(func() {
			err = e
			reset(a)
			reset(b)
			a.Close()
			b.Close()
		})
	}
	stop := context.AfterFunc(ctx, func() { fail(context.Cause(ctx)) })
	oneWay := func(dst, src Conn) {
		if _, e := io.Copy(dst, src); e != nil && !errors.Is(e, unix.EPIPE) {
			fail(e)
			return
		}
		if e := dst.CloseWrite(); e != nil && !gone(e) {
			fail(e)
		}
	}
	wg.Go(func() { oneWay(a, b) })
	oneWay(b, a)
	wg.Wait()
	stop()
	failed.Do(func() { // waits for a failure that is being dealt with
		a.Close()
		b.Close()
	})
	return err
}

// gone tells that a connection's peer has already left, so that there is nobody to send the end to.
func gone(err error) bool {
	return errors.Is(err, net.ErrClosed) || errors.Is(err, unix.ENOTCONN) ||
		errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET)
}
