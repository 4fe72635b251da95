package daemon

import (
	"bufio"
	"io"
	"net"
)

// protocol names, in an Upgrade header, a connection that has become a plain stream of bytes each way.
const protocol = "nesim-stream"

// stream is a UNIX connection of which some bytes have been read ahead. It can be closed one way.
type stream struct {
	*net.UnixConn
	r *bufio.Reader
}

func (s *stream) Read(p []byte) (int, error) { return s.r.Read(p) }

// WriteTo stands before the connection's own, which knows nothing of what was read ahead.
func (s *stream) WriteTo(w io.Writer) (int64, error) { return s.r.WriteTo(w) }
