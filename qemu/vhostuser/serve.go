package vhostuser

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// Serve accepts front ends on l, one after the other, and serves dev to each. It
// closes l. It returns nil when ctx is done, or the error of a front end that has
// broken the protocol.
func Serve(ctx context.Context, l *net.UnixListener, dev Device) error {
	defer l.Close()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		c, err := l.AcceptUnix()
		if ctx.Err() != nil {
			if c != nil {
				c.Close()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("wait for QEMU on %v: %w", l.Addr(), err)
		}
		if err := ServeConn(ctx, c, dev); err != nil {
			return err
		}
	}
}

// ServeConn serves dev to the front end behind c, which it closes. It returns nil
// when the front end has hung up or ctx is done. When it returns, all queues have
// stopped and the guest's memory is unmapped.
func ServeConn(ctx context.Context, c *net.UnixConn, dev Device) error {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	s := newSession(dev)
	defer s.close()
	for {
		m, err := ReadMessage(c)
		if err == nil {
			err = s.serve(c, m)
		}
		switch {
		case err == nil:
		case ctx.Err() != nil || hungUp(err):
			return nil
		default:
			return fmt.Errorf("vhost-user: %w", err)
		}
	}
}

// hungUp tells the end of a front end, however sudden, from its mistakes.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE)
}

// serve answers one message. A request that cannot be met is refused where the
// front end waits for an answer, and ends the session where it does not.
func (s *session) serve(c *net.UnixConn, m *Message) error {
	defer m.Close()
	reply, err := s.handle(m)
	wanted := m.Flags&FlagNeedReply != 0 && s.protocol&ProtocolReplyAck != 0
	switch {
	case err != nil && !wanted:
		return fmt.Errorf("%v: %w", m.Request, err)
	case reply == nil && !wanted:
		return nil
	case reply == nil:
		status := uint64(0)
		if err != nil {
			status = 1
		}
		reply = binary.LittleEndian.AppendUint64(nil, status)
	}
	return WriteMessage(c, &Message{Request: m.Request, Flags: FlagReply, Payload: reply})
}
