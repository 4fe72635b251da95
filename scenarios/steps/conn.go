package steps

import (
	"context"
	"errors"
	"time"

	"github.com/nesim/nesim/scenarios"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/sim/vsock"
)

// maxBytes bounds what one step sends or receives.
const maxBytes = scenarios.MaxBytes

// conn is a connection that a step has made.
type conn struct{ vsock.Conn }

// limit gives reads and writes the time that a step has.
func (c *conn) limit(ctx context.Context) error {
	at, limited := ctx.Deadline()
	if !limited {
		at = time.Time{}
	}
	return c.SetDeadline(at)
}

// connect dials a port of a CID. With wait it waits until something listens: the workload starts after the heartbeat.
func (w *World) connect(ctx context.Context, b Branch, cid, port uint32, wait bool) (*conn, error) {
	for {
		c, err := w.Stage.Net.Dial(ctx, vsock.Addr{ContextID: vsock.CIDParent, Port: vsock.PortAny}, vsock.Addr{ContextID: cid, Port: port})
		if err == nil {
			return &conn{c}, nil
		}
		nobody := errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.ECONNREFUSED)
		if !wait || !nobody || w.pause(ctx, b) != nil {
			return nil, err
		}
	}
}

// pattern is the bytes that send and expect use where only a size is given.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8)
	}
	return b
}
