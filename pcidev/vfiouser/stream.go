package vfiouser

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrClosed reports that the peer or this side ended the connection.
var ErrClosed = errors.New("vfio-user connection closed")

var errCutShort = fmt.Errorf("vfio-user message cut short: %w", io.ErrUnexpectedEOF)

// errTooLong and errTooManyFDs report a message that was received to its end and
// dropped: the connection goes on.
var (
	errTooLong    = errors.New("message too long")
	errTooManyFDs = errors.New("too many descriptors in a message")
)

// stream receives and sends messages on a blocking UNIX socket. receive and send
// have one caller at a time each; shutdown may be called by anyone.
type stream struct {
	fd int

	buf  []byte
	r, w int    // buf[r:w] is received and not used
	base uint64 // position of buf[0] in the byte stream

	oob []byte
	fds []received // in order of at

	mu     sync.Mutex // guards closed against shutdown
	closed bool
}

// received is a descriptor that came with the byte before position at.
type received struct {
	at uint64
	fd int
}

// newStream takes the socket out of conn, which is closed in every case.
func newStream(conn *net.UnixConn, size int) (*stream, error) {
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("vfio-user socket: %w", err)
	}
	fd := -1
	var dupErr error
	if err := raw.Control(func(s uintptr) { fd, dupErr = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return nil, fmt.Errorf("vfio-user socket: %w", err)
	}
	if dupErr == nil {
		dupErr = unix.SetNonblock(fd, false)
	}
	if dupErr != nil {
		closeFD(fd)
		return nil, fmt.Errorf("vfio-user socket: %w", dupErr)
	}
	return &stream{
		fd:  fd,
		buf: make([]byte, size),
		oob: make([]byte, unix.CmsgSpace(4*MaxMessageFDs)),
	}, nil
}

// setTimeouts bounds how long one wait for the peer may last.
func (s *stream) setTimeouts(d time.Duration) error {
	tv := unix.NsecToTimeval(d.Nanoseconds())
	return errors.Join(
		unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv),
		unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv))
}

// shutdown ends both directions: a receive or send under way returns.
func (s *stream) shutdown() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		unix.Shutdown(s.fd, unix.SHUT_RDWR)
	}
}

// close is called once nobody receives or sends any more.
func (s *stream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		for _, f := range s.fds {
			closeFD(f.fd)
		}
		unix.Close(s.fd)
	}
}

// receive returns the next message. p lies in the stream's buffer and is good
// until the next call; the descriptors, appended to fds, are the caller's. With
// errTooLong and errTooManyFDs h is good and the stream stands at the next
// message; all other errors are final.
func (s *stream) receive(fds []int) (h header, p []byte, _ []int, err error) {
	if err := s.fill(headerSize); err != nil {
		return h, nil, fds, err
	}
	h = parseHeader(s.buf[s.r:])
	if h.size < headerSize {
		return h, nil, fds, fmt.Errorf("vfio-user message of %d bytes, shorter than its header", h.size)
	}
	if int64(h.size) > int64(len(s.buf)) {
		if err := s.skip(int64(h.size)); err != nil {
			return h, nil, fds, err
		}
		return h, nil, fds, errTooLong
	}
	if err := s.fill(int(h.size)); err != nil {
		return h, nil, fds, err
	}
	p = s.buf[s.r+headerSize : s.r+int(h.size)]
	s.r += int(h.size)
	fds, err = s.take(fds)
	return h, p, fds, err
}

// take moves the descriptors that came with bytes up to s.r to fds.
//
// The kernel ends a read at the last byte that was sent together with
// descriptors. So where one read returns several messages they belong to the
// last, and where a message needs several reads, to that message.
func (s *stream) take(fds []int) ([]int, error) {
	n, over := 0, false
	for n < len(s.fds) && s.fds[n].at <= s.base+uint64(s.r) {
		over = over || s.fds[n].fd < 0
		n++
	}
	for _, f := range s.fds[:n] {
		if over {
			closeFD(f.fd)
		} else {
			fds = append(fds, f.fd)
		}
	}
	s.fds = append(s.fds[:0], s.fds[n:]...)
	if over {
		return fds, errTooManyFDs
	}
	return fds, nil
}

// fill reads until n bytes (at most len(s.buf)) are unused in the buffer.
func (s *stream) fill(n int) error {
	if s.r == s.w || len(s.buf)-s.r < n {
		copy(s.buf, s.buf[s.r:s.w])
		s.base += uint64(s.r)
		s.r, s.w = 0, s.w-s.r
	}
	for s.w-s.r < n {
		if err := s.read(); err != nil {
			return err
		}
	}
	return nil
}

// skip drops n bytes and the descriptors that came with them.
func (s *stream) skip(n int64) error {
	for n > 0 {
		if err := s.fill(1); err == ErrClosed {
			return errCutShort
		} else if err != nil {
			return err
		}
		part := min(n, int64(s.w-s.r))
		s.r, n = s.r+int(part), n-part
		dropped, _ := s.take(nil)
		for _, fd := range dropped {
			closeFD(fd)
		}
	}
	return nil
}

// read adds at least one byte to the buffer.
func (s *stream) read() error {
	for {
		n, oobn, flags, _, err := unix.Recvmsg(s.fd, s.buf[s.w:], s.oob, unix.MSG_CMSG_CLOEXEC)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return fmt.Errorf("vfio-user peer does not answer: %w", os.ErrDeadlineExceeded)
		case err == unix.ECONNRESET:
			return ErrClosed
		case err != nil:
			return fmt.Errorf("vfio-user receive: %w", err)
		}
		s.w += n
		if oobn > 0 || flags&unix.MSG_CTRUNC != 0 {
			s.keep(s.oob[:oobn], flags&unix.MSG_CTRUNC != 0)
		}
		if n == 0 {
			if s.w > s.r {
				return errCutShort
			}
			return ErrClosed
		}
		return nil
	}
}

// keep notes the descriptors of a read. When they are more than a message may
// have, they are closed and an entry of -1 says so.
func (s *stream) keep(oob []byte, truncated bool) {
	at := s.base + uint64(s.w)
	over := truncated
	for len(oob) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			over = true
			break
		}
		oob = rest
		if h.Level != unix.SOL_SOCKET || h.Type != unix.SCM_RIGHTS {
			continue
		}
		for ; len(data) >= 4; data = data[4:] {
			fd := int(int32(le.Uint32(data)))
			if over = over || len(s.fds) >= MaxMessageFDs; over {
				closeFD(fd)
			} else {
				s.fds = append(s.fds, received{at, fd})
			}
		}
	}
	if over {
		if n := len(s.fds); n > 0 && s.fds[n-1].fd < 0 {
			s.fds[n-1].at = at // one note is enough, for the latest message
		} else {
			s.fds = append(s.fds, received{at, -1})
		}
	}
}

// send writes b, with descriptors if there are any.
func (s *stream) send(b []byte, fds []int) error {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	for len(b) > 0 {
		n, err := unix.SendmsgN(s.fd, b, oob, nil, unix.MSG_NOSIGNAL)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return fmt.Errorf("vfio-user peer does not read: %w", os.ErrDeadlineExceeded)
		case err == unix.EPIPE, err == unix.ECONNRESET:
			return ErrClosed
		case err != nil:
			return fmt.Errorf("vfio-user send: %w", err)
		}
		b, oob = b[n:], nil
	}
	return nil
}
