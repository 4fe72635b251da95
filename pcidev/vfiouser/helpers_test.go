package vfiouser

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// testDevice has a BAR 0 of 4 KiB, a read-only BAR 1 of 16 bytes, and 256 bytes
// of configuration space: plain memory.
type testDevice struct {
	mu      sync.Mutex
	memory  [NumRegions][]byte
	resets  int
	refusal error
}

func newTestDevice() *testDevice {
	d := &testDevice{}
	d.memory[0], d.memory[1], d.memory[RegionConfig] = make([]byte, 4096), make([]byte, 16), make([]byte, 256)
	return d
}

func (d *testDevice) Regions() (r [NumRegions]Region) {
	for i, m := range d.memory {
		if m != nil {
			r[i] = Region{Size: uint64(len(m)), Flags: RegionFlagRead | RegionFlagWrite}
		}
	}
	r[1].Flags = RegionFlagRead
	return r
}

func (d *testDevice) RegionRead(region uint32, off uint64, p []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(p, d.memory[region][off:][:len(p)])
	return d.refusal
}

func (d *testDevice) RegionWrite(region uint32, off uint64, p []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(d.memory[region][off:][:len(p)], p)
	return d.refusal
}

func (d *testDevice) Reset() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.resets++
	return d.refusal
}

func (d *testDevice) refuse(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refusal = err
}

func (d *testDevice) resetCount() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.resets
}

// bytes returns n bytes of region 0.
func (d *testDevice) bytes(off, n int) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]byte(nil), d.memory[0][off:][:n]...)
}

// fixture is a server at work.
type fixture struct {
	device *testDevice
	dma    *DMA
	irqs   *IRQs
	done   chan error // Serve's result
	cancel context.CancelFunc
}

// serve starts a server on one end of a socket pair and returns the other. When the
// test ends the server must end too, leaving no descriptor behind.
func serve(t testing.TB) (*fixture, *net.UnixConn) {
	before := openFDs(t)
	server, client := socketPair(t)
	ctx, cancel := context.WithCancel(context.Background())
	f := &fixture{device: newTestDevice(), dma: new(DMA), irqs: NewIRQs(2), done: make(chan error, 1), cancel: cancel}
	go func() {
		s := Server{Device: f.device, DMA: f.dma, IRQs: f.irqs}
		f.done <- s.Serve(ctx, server)
		close(f.done)
	}()
	t.Cleanup(func() {
		client.Close()
		f.ended(t)
		cancel()
		f.dma.UnmapAll()
		require.Equal(t, before, openFDs(t), "descriptors left open")
	})
	return f, client
}

// ended waits for Serve and returns its error.
func (f *fixture) ended(t testing.TB) error {
	select {
	case err := <-f.done:
		return err
	case <-time.After(time.Minute):
		require.Fail(t, "server goes on")
		return nil
	}
}

// dial is serve with a Client.
func dial(t testing.TB) (*fixture, *Client) {
	f, conn := serve(t)
	c, err := NewClient(context.Background(), conn)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return f, c
}

func socketPair(t testing.TB) (a, b *net.UnixConn) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	var conns [2]*net.UnixConn
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "socket")
		conn, err := net.FileConn(file)
		require.NoError(t, err)
		file.Close()
		conns[i] = conn.(*net.UnixConn)
	}
	return conns[0], conns[1]
}

// openFDs names what the descriptors of this process refer to, the runtime's own
// and standard ones excepted.
func openFDs(t testing.TB) map[string]int {
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	open := map[string]int{}
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join("/proc/self/fd", e.Name()))
		if err == nil && target != "anon_inode:[eventpoll]" && target != fmt.Sprintf("/proc/%d/fd", os.Getpid()) {
			open[e.Name()+" "+target]++
		}
	}
	return open
}

// memfd returns a file of size bytes.
func memfd(t testing.TB, size int64) int {
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
	require.NoError(t, err)
	require.NoError(t, unix.Ftruncate(fd, size))
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func dup(t testing.TB, fd int) int {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	require.NoError(t, err)
	return n
}

func eventfd(t testing.TB) int {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// signals returns an eventfd's counter and clears it.
func signals(t testing.TB, fd int) uint64 {
	var b [8]byte
	_, err := unix.Read(fd, b[:])
	if err == unix.EAGAIN {
		return 0
	}
	require.NoError(t, err)
	return le.Uint64(b[:])
}

// message builds a command with the size its payload has.
func message(cmd Command, flags uint32, payload []byte) []byte {
	b := make([]byte, headerSize)
	header{id: 0x1234, cmd: cmd, size: uint32(headerSize + len(payload)), flags: flags}.put(b)
	return append(b, payload...)
}

// u32s and u64s build payloads.
func u32s(vs ...uint32) []byte { return words(vs...) }

func u64s(vs ...uint64) (b []byte) {
	for _, v := range vs {
		b = le.AppendUint64(b, v)
	}
	return b
}

func join(parts ...[]byte) (b []byte) {
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// rawClient sends bytes and reads replies, with no opinion on them.
type rawClient struct {
	t  testing.TB
	st *stream
}

func rawDial(t testing.TB) (*fixture, *rawClient) {
	f, conn := serve(t)
	st, err := newStream(conn, maxMessage)
	require.NoError(t, err)
	require.NoError(t, st.setTimeouts(time.Minute))
	t.Cleanup(st.close)
	return f, &rawClient{t, st}
}

// agree does the VERSION exchange.
func (c *rawClient) agree() *rawClient {
	h, _ := c.ask(message(CmdVersion, 0, appendVersion(nil, 0, limits())))
	require.Zero(c.t, h.flags&flagError)
	return c
}

func (c *rawClient) send(b []byte, fds ...int) { require.NoError(c.t, c.st.send(b, fds)) }

func (c *rawClient) ask(b []byte, fds ...int) (header, []byte) {
	c.send(b, fds...)
	return c.reply()
}

func (c *rawClient) reply() (header, []byte) {
	h, p, fds, err := c.st.receive(nil)
	require.NoError(c.t, err)
	require.Empty(c.t, fds)
	require.EqualValues(c.t, flagReply, h.flags&flagTypeMask)
	return h, p
}
