package vfiouser

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/internal/private"
)

// replyTimeout is how long a Client waits for any reply. Servers answer at once:
// what takes time is announced by interrupts.
const replyTimeout = 60 * time.Second

// Client drives a vfio-user device. Its methods may be called from several
// goroutines. A request that the server refuses returns an *Error; any other
// error is the end of the connection, and all later calls return it too (it wraps
// ErrClosed if the server or Close ended it).
type Client struct {
	st *stream

	mu  sync.Mutex // one request at a time
	id  uint16
	out []byte
	err error // why the connection is unusable
}

// DeviceInfo is the answer to DEVICE_GET_INFO.
type DeviceInfo struct {
	Flags      uint32 // DeviceFlagReset, DeviceFlagPCI
	NumRegions uint32
	NumIRQs    uint32
}

// IRQInfo is the answer to DEVICE_GET_IRQ_INFO.
type IRQInfo struct {
	Flags uint32 // IRQFlagEventfd ...
	Count uint32 // vectors
}

// Write is one of the writes of Client.Post.
type Write struct {
	Offset uint64
	Data   []byte
}

// Dial connects to the device at a UNIX socket and agrees on the version.
func Dial(ctx context.Context, path string) (*Client, error) {
	conn, err := private.Dial(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("connect to the PCI device at %s: %w", path, err)
	}
	return NewClient(ctx, conn)
}

// NewClient agrees on the version over a connection, which it owns.
func NewClient(ctx context.Context, conn *net.UnixConn) (*Client, error) {
	st, err := newStream(conn, maxMessage)
	if err != nil {
		return nil, err
	}
	c := &Client{st: st, out: make([]byte, 0, maxMessage)}
	stop := context.AfterFunc(ctx, st.shutdown)
	err = c.negotiate()
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		st.close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("vfio-user version: %w", err)
	}
	return c, nil
}

func (c *Client) negotiate() error {
	if err := c.st.setTimeouts(replyTimeout); err != nil {
		return err
	}
	p, err := c.call(CmdVersion, nil, appendVersion(nil, versionMinor, limits()))
	if err != nil {
		return err
	}
	if len(p) < versionSize || le.Uint16(p) != versionMajor || le.Uint16(p[2:]) > versionMinor {
		return errors.New("server speaks another version")
	}
	_, err = parseCapabilities(p[versionSize:])
	return err
}

// Close ends the connection; calls under way return.
func (c *Client) Close() error {
	c.st.shutdown()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = ErrClosed
	c.st.close()
	return nil
}

// begin appends the header of a message with size bytes of payload to c.out.
func (c *Client) begin(cmd Command, flags uint32, size int) {
	c.id++
	n := len(c.out)
	c.out = c.out[:n+headerSize]
	header{id: c.id, cmd: cmd, size: uint32(headerSize + size), flags: flags}.put(c.out[n:])
}

// call sends a command and returns its reply's payload, good until the next call.
// c.mu is held, or the client not yet shared.
func (c *Client) call(cmd Command, fds []int, payload ...[]byte) ([]byte, error) {
	size := 0
	for _, p := range payload {
		size += len(p)
	}
	if size > regionAccessSize+MaxTransfer {
		return nil, &Error{cmd, unix.EMSGSIZE}
	}
	c.out = c.out[:0]
	c.begin(cmd, 0, size)
	for _, p := range payload {
		c.out = append(c.out, p...)
	}
	return c.exchange(cmd, fds)
}

// exchange sends c.out and waits for the reply to its last message.
func (c *Client) exchange(cmd Command, fds []int) ([]byte, error) {
	if c.err != nil {
		return nil, c.err
	}
	if err := c.st.send(c.out, fds); err != nil {
		return nil, c.fail(err)
	}
	h, p, got, err := c.st.receive(nil)
	for _, fd := range got { // no reply that we ask for has any
		closeFD(fd)
	}
	switch {
	case err != nil:
		return nil, c.fail(err)
	case h.flags&flagTypeMask != flagReply, h.id != c.id, h.cmd != cmd:
		return nil, c.fail(fmt.Errorf("vfio-user server sent %v where the reply to %v was due", h.cmd, cmd))
	case h.flags&flagError != 0 && h.errno == 0: // an errno is optional
		return nil, &Error{cmd, unix.EIO}
	case h.flags&flagError != 0:
		return nil, &Error{cmd, unix.Errno(h.errno)}
	}
	return p, nil
}

// fail makes the connection unusable.
func (c *Client) fail(err error) error {
	if c.err == nil {
		c.err = err
		c.st.shutdown()
	}
	return c.err
}

// expect is call for replies of a known least size.
func (c *Client) expect(size int, cmd Command, payload ...[]byte) ([]byte, error) {
	p, err := c.call(cmd, nil, payload...)
	if err == nil && len(p) < size {
		err = c.fail(fmt.Errorf("vfio-user reply to %v is %d bytes short", cmd, size-len(p)))
	}
	return p, err
}

// Info asks for the device's flags and numbers.
func (c *Client) Info() (DeviceInfo, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := c.expect(deviceInfoSize, CmdDeviceGetInfo, words(deviceInfoSize, 0, 0, 0))
	if err != nil {
		return DeviceInfo{}, err
	}
	return DeviceInfo{Flags: le.Uint32(p[4:]), NumRegions: le.Uint32(p[8:]), NumIRQs: le.Uint32(p[12:])}, nil
}

// RegionInfo asks for a region.
func (c *Client) RegionInfo(index uint32) (Region, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := c.expect(regionInfoSize, CmdDeviceGetRegionInfo, words(regionInfoSize, 0, index, 0, 0, 0, 0, 0))
	if err != nil {
		return Region{}, err
	}
	return Region{Flags: le.Uint32(p[4:]), Size: le.Uint64(p[16:])}, nil
}

// IRQInfo asks for an interrupt index.
func (c *Client) IRQInfo(index uint32) (IRQInfo, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := c.expect(irqInfoSize, CmdDeviceGetIRQInfo, words(irqInfoSize, 0, index, 0))
	if err != nil {
		return IRQInfo{}, err
	}
	return IRQInfo{Flags: le.Uint32(p[4:]), Count: le.Uint32(p[12:])}, nil
}

// RegionRead fills p from a region.
func (c *Client) RegionRead(region uint32, off uint64, p []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(p) > MaxTransfer {
		return &Error{CmdRegionRead, unix.EMSGSIZE}
	}
	c.out = c.out[:0]
	c.begin(CmdRegionRead, 0, regionAccessSize)
	c.access(region, off, len(p))
	re, err := c.exchange(CmdRegionRead, nil)
	if err != nil {
		return err
	}
	if len(re) != regionAccessSize+len(p) {
		return c.fail(fmt.Errorf("vfio-user read of %d bytes answered with %d", len(p), len(re)-regionAccessSize))
	}
	copy(p, re[regionAccessSize:])
	return nil
}

// access appends the fixed part of a region access to c.out.
func (c *Client) access(region uint32, off uint64, n int) {
	c.out = le.AppendUint64(c.out, off)
	c.out = le.AppendUint32(c.out, region)
	c.out = le.AppendUint32(c.out, uint32(n))
}

// RegionWrite writes p to a region and waits for the device to have taken it.
func (c *Client) RegionWrite(region uint32, off uint64, p []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(p) > MaxTransfer {
		return &Error{CmdRegionWrite, unix.EMSGSIZE}
	}
	c.out = c.out[:0]
	c.begin(CmdRegionWrite, 0, regionAccessSize+len(p))
	c.access(region, off, len(p))
	c.out = append(c.out, p...)
	_, err := c.exchange(CmdRegionWrite, nil)
	return err
}

// Post writes to a region without waiting, as a processor's writes do: in order,
// in one send, before anything asked later; the device's refusal is not seen.
func (c *Client) Post(region uint32, writes ...Write) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	c.out = c.out[:0]
	for _, w := range writes {
		if len(c.out)+headerSize+regionAccessSize+len(w.Data) > maxMessage {
			return &Error{CmdRegionWrite, unix.EMSGSIZE}
		}
		c.begin(CmdRegionWrite, flagNoReply, regionAccessSize+len(w.Data))
		c.access(region, w.Offset, len(w.Data))
		c.out = append(c.out, w.Data...)
	}
	if err := c.st.send(c.out, nil); err != nil {
		return c.fail(err)
	}
	return nil
}

// DMAMap gives the device size bytes of memory at address addr, which are those at
// offset off of file fd (-1: no file; the device then knows of the range and
// cannot reach it). flags are DMARead and DMAWrite. fd stays the caller's.
func (c *Client) DMAMap(addr, size uint64, fd int, off uint64, flags uint32) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var fds []int
	if fd >= 0 {
		fds = []int{fd}
	}
	p := words(dmaMapSize, flags)
	p = le.AppendUint64(p, off)
	p = le.AppendUint64(p, addr)
	p = le.AppendUint64(p, size)
	_, err := c.call(CmdDMAMap, fds, p)
	return err
}

// DMAUnmap takes back exactly one range given by DMAMap. When it returns, the
// device has stopped using it.
func (c *Client) DMAUnmap(addr, size uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := words(dmaUnmapSize, 0)
	p = le.AppendUint64(p, addr)
	p = le.AppendUint64(p, size)
	_, err := c.call(CmdDMAUnmap, nil, p)
	return err
}

// SetIRQs arms vectors of an interrupt index from start on, one for each eventfd.
// The descriptors stay the caller's; they must be non-blocking.
func (c *Client) SetIRQs(index, start uint32, eventfds ...int) error {
	if len(eventfds) == 0 || len(eventfds) > MaxMessageFDs {
		return &Error{CmdDeviceSetIRQs, unix.EINVAL}
	}
	return c.setIRQs(index, irqDataEventfd|irqActionTrigger, start, uint32(len(eventfds)), eventfds)
}

// UnsetIRQs takes the eventfds of count vectors away.
func (c *Client) UnsetIRQs(index, start, count uint32) error {
	return c.setIRQs(index, irqDataEventfd|irqActionTrigger, start, count, nil)
}

// MaskIRQs holds vectors back (their pending bits are kept); UnmaskIRQs lets them go.
func (c *Client) MaskIRQs(index, start, count uint32) error {
	return c.setIRQs(index, irqDataNone|irqActionMask, start, count, nil)
}

// UnmaskIRQs undoes MaskIRQs.
func (c *Client) UnmaskIRQs(index, start, count uint32) error {
	return c.setIRQs(index, irqDataNone|irqActionUnmask, start, count, nil)
}

// TriggerIRQs makes the device raise vectors, to test them.
func (c *Client) TriggerIRQs(index, start, count uint32) error {
	return c.setIRQs(index, irqDataNone|irqActionTrigger, start, count, nil)
}

// DisableIRQs takes away every vector of an index.
func (c *Client) DisableIRQs(index uint32) error {
	return c.setIRQs(index, irqDataNone|irqActionTrigger, 0, 0, nil)
}

func (c *Client) setIRQs(index, flags, start, count uint32, fds []int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.call(CmdDeviceSetIRQs, fds, words(irqSetSize, flags, index, start, count))
	return err
}

// Reset resets the device.
func (c *Client) Reset() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.call(CmdDeviceReset, nil)
	return err
}

func words(vs ...uint32) []byte {
	var b []byte
	for _, v := range vs {
		b = le.AppendUint32(b, v)
	}
	return b
}
