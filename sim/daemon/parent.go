package daemon

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

// pathParentVsock turns a request's own connection into the vhost-user connection of a primary VM's vsock device.
const pathParentVsock = "/parent/vsock"

// AttachParent asks for the vsock device of a primary VM, CID 3. The file is a vhost-user connection, for QEMU; the
// device lasts as long as the connection.
func (c *Client) AttachParent(ctx context.Context) (*os.File, error) {
	s, err := c.open(ctx, pathParentVsock, nil)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	// The daemon speaks only when it is asked, so that nothing has been read ahead.
	file, err := s.(*stream).File()
	if err != nil {
		return nil, fmt.Errorf("hand the vsock device over: %w", err)
	}
	return file, nil
}

// parentVsock serves a primary VM's vsock device until its QEMU is gone or the daemon ends.
func (s *server) parentVsock(w http.ResponseWriter, _ *http.Request) error {
	device, err := s.inst.AttachParent()
	if err != nil {
		return err
	}
	conn, err := hijack(w)
	if err != nil {
		return errors.Join(err, device.Serve(s.ctx, nil))
	}
	s.cfg.Log.Info("primary VM attached")
	s.streams.Go(func() {
		err := device.Serve(s.ctx, conn)
		s.cfg.Log.Info("primary VM gone", "error", err)
	})
	return nil
}

// hijack takes a request's connection over from the HTTP server.
func hijack(w http.ResponseWriter) (*net.UnixConn, error) {
	taken, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, fmt.Errorf("take the connection over: %w", err)
	}
	conn := taken.(*net.UnixConn)
	_ = conn.SetDeadline(time.Time{})
	if err := upgraded(conn, buffered.Reader); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// upgraded tells the client that its connection is a stream now. A client has nothing to say before that.
func upgraded(w io.Writer, ahead *bufio.Reader) error {
	if ahead.Buffered() > 0 {
		return errors.New("the client speaks too early")
	}
	_, err := io.WriteString(w, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+protocol+"\r\n\r\n")
	return err
}
