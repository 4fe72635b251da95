package vfiouser

import (
	"context"
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

// Region describes a region of a device. A region of size 0 does not exist.
type Region struct {
	Size  uint64 // bytes
	Flags uint32 // RegionFlagRead, RegionFlagWrite
}

// Device is what a Server serves. All accesses it gets are within its regions and
// not empty. Errors become the reply's errno (the unix.Errno they wrap, or EIO);
// a posted write's error is lost.
type Device interface {
	Regions() [NumRegions]Region // constant
	RegionRead(region uint32, off uint64, p []byte) error
	RegionWrite(region uint32, off uint64, p []byte) error
	Reset() error
}

// Server serves a Device to one client.
type Server struct {
	Device Device
	DMA    *DMA  // filled by the client
	IRQs   *IRQs // armed by the client
}

// Serve answers the client on conn until it goes (nil), ctx is done (ctx's error)
// or the stream cannot be understood any more. It owns conn. When it returns the
// client's interrupts are disabled and its memory is still mapped: the caller ends
// what uses it, then calls DMA.UnmapAll.
func (s *Server) Serve(ctx context.Context, conn *net.UnixConn) error {
	st, err := newStream(conn, maxMessage)
	if err != nil {
		return err
	}
	defer s.IRQs.Disable()
	defer st.close()
	defer context.AfterFunc(ctx, st.shutdown)()

	c := connection{server: s, regions: s.Device.Regions(), out: make([]byte, 0, maxMessage)}
	err = c.run(st)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, ErrClosed) {
		return nil
	}
	return err
}

// connection is the state of one client.
type connection struct {
	server  *Server
	regions [NumRegions]Region
	req     request
	out     []byte // the reply; its header is filled last
	version bool   // VERSION was agreed
}

var errVersion = errors.New("vfio-user client speaks another version")

func (c *connection) run(st *stream) error {
	var fds []int
	for {
		h, p, got, err := st.receive(fds[:0])
		fds = got
		var errno unix.Errno
		switch err {
		case nil:
		case errTooLong:
			errno = unix.EMSGSIZE
		case errTooManyFDs:
			errno = unix.E2BIG
		default:
			return err
		}
		reply := c.handle(h, p, fds, errno)
		for _, fd := range fds {
			closeFD(fd)
		}
		if reply != nil {
			if err := st.send(reply, nil); err != nil {
				return err
			}
		}
		if h.cmd == CmdVersion && !c.version {
			return errVersion
		}
	}
}

// handle acts on one message and returns the reply, nil if none is wanted.
// Descriptors it takes over are set to -1 in fds. errno, if not 0, is what
// receiving the message already found wrong.
func (c *connection) handle(h header, p []byte, fds []int, errno unix.Errno) []byte {
	c.out = c.out[:headerSize]
	if errno == 0 {
		errno = c.req.parse(h, p, len(fds), &c.regions, uint32(c.server.IRQs.Len()))
	}
	if errno == 0 && c.version == (h.cmd == CmdVersion) { // VERSION comes first and once
		errno = unix.EPROTO
	}
	if errno == 0 {
		errno = errnoOf(c.act(&c.req, fds))
	}
	if h.flags&flagNoReply != 0 {
		return nil
	}
	re := header{id: h.id, cmd: h.cmd, flags: flagReply}
	if errno != 0 {
		c.out = c.out[:headerSize]
		re.flags |= flagError
		re.errno = uint32(errno)
	}
	re.size = uint32(len(c.out))
	re.put(c.out)
	return c.out
}

// act performs a checked request and appends the reply's payload to c.out.
func (c *connection) act(r *request, fds []int) error {
	s := c.server
	switch r.cmd {
	case CmdVersion:
		c.version = true
		c.out = appendVersion(c.out, r.minor, r.caps.subset())
	case CmdDMAMap:
		fd := -1
		if len(fds) == 1 {
			fd, fds[0] = fds[0], -1
		}
		return s.DMA.Map(r.addr, r.size, r.off, r.flags, fd)
	case CmdDMAUnmap:
		return c.unmap(r)
	case CmdDeviceGetInfo:
		c.put32(deviceInfoSize, DeviceFlagReset|DeviceFlagPCI, NumRegions, NumIRQs)
	case CmdDeviceGetRegionInfo:
		c.put32(regionInfoSize, c.regions[r.index].Flags, r.index, 0)
		c.put64(c.regions[r.index].Size, 0)
	case CmdDeviceGetIRQInfo:
		flags, count := uint32(0), uint32(0)
		if r.index == IRQMSIX {
			flags, count = IRQFlagEventfd|IRQFlagMaskable, uint32(s.IRQs.Len())
		}
		c.put32(irqInfoSize, flags, r.index, count)
	case CmdDeviceSetIRQs:
		return s.IRQs.set(r, fds)
	case CmdRegionRead:
		c.put64(r.off)
		c.put32(r.index, r.count)
		n := len(c.out)
		c.out = c.out[:n+int(r.count)]
		clear(c.out[n:])
		return s.Device.RegionRead(r.index, r.off, c.out[n:])
	case CmdRegionWrite:
		c.put64(r.off)
		c.put32(r.index, r.count)
		return s.Device.RegionWrite(r.index, r.off, r.data)
	case CmdDeviceReset:
		return s.Device.Reset()
	}
	return nil
}

func (c *connection) unmap(r *request) error {
	if r.flags&dmaUnmapAll != 0 {
		c.server.DMA.UnmapAll()
	} else if err := c.server.DMA.Unmap(r.addr, r.size); err != nil {
		return err
	}
	c.put32(dmaUnmapSize, r.flags)
	c.put64(r.addr, r.size)
	return nil
}

func (c *connection) put32(vs ...uint32) {
	for _, v := range vs {
		c.out = le.AppendUint32(c.out, v)
	}
}

func (c *connection) put64(vs ...uint64) {
	for _, v := range vs {
		c.out = le.AppendUint64(c.out, v)
	}
}

func errnoOf(err error) unix.Errno {
	if err == nil {
		return 0
	}
	var errno unix.Errno
	if errors.As(err, &errno) && errno != 0 {
		return errno
	}
	return unix.EIO
}
