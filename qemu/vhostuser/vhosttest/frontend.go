// Package vhosttest is the other side of a vhost-user back end, for tests: a front
// end that speaks the real protocol over a real socket, and a driver that works
// virtqueues in shared memory as a guest would, or as no guest should.
package vhosttest

import (
	"encoding/binary"
	"net"
	"os"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/qemu/vhostuser"
)

// The guest's memory is one file, mapped at GuestBase for the guest and at
// UserBase for the front end. It is told as two regions, which meet at
// its middle.
const (
	GuestBase = 0x1_0000_0000
	UserBase  = 0x7000_0000_0000
)

// FrontEnd is a front end with one device and its guest's memory. Its methods fail
// the test when something goes wrong; they are for one goroutine at a time.
type FrontEnd struct {
	Mem  []byte // the guest's memory
	Conn *net.UnixConn

	t    testing.TB
	file *os.File
	next int // first free byte of Mem
	once sync.Once
}

// Pair returns the two ends of a UNIX connection.
func Pair(t testing.TB) (front, back *net.UnixConn) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	conn := func(fd int) *net.UnixConn {
		f := os.NewFile(uintptr(fd), "socketpair")
		defer f.Close()
		c, err := net.FileConn(f)
		require.NoError(t, err)
		return c.(*net.UnixConn)
	}
	return conn(fds[0]), conn(fds[1])
}

// New makes a front end with size bytes of memory that talks on c. It is closed
// at the end of the test, if not before.
func New(t testing.TB, c *net.UnixConn, size int) *FrontEnd {
	f := &FrontEnd{t: t, Conn: c, file: Memfd(t, size, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)}
	var err error
	f.Mem, err = unix.Mmap(int(f.file.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	require.NoError(t, err)
	t.Cleanup(f.Close)
	return f
}

// Memfd makes a file in memory, sealed as QEMU's memory-backend-memfd does it by
// F_SEAL_SHRINK, GROW and SEAL, or otherwise. It is closed at the end of the test.
func Memfd(t testing.TB, size, seals int) *os.File {
	fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	require.NoError(t, err)
	file := os.NewFile(uintptr(fd), "guest")
	t.Cleanup(func() { file.Close() })
	require.NoError(t, file.Truncate(int64(size)))
	_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
	require.NoError(t, err)
	return file
}

// Close hangs up. The memory stays mapped until the end of the test.
func (f *FrontEnd) Close() {
	f.Conn.Close()
	f.once.Do(func() { f.t.Cleanup(func() { unix.Munmap(f.Mem) }) })
}

// Alloc takes n bytes of the guest's memory, aligned to 64 bytes, and returns them
// with their guest physical address.
func (f *FrontEnd) Alloc(n int) ([]byte, uint64) {
	at := (f.next + 63) &^ 63
	f.next = at + n
	require.LessOrEqual(f.t, f.next, len(f.Mem), "guest memory is full")
	return f.Mem[at:f.next:f.next], GuestBase + uint64(at)
}

// Send sends a request without waiting for anything.
func (f *FrontEnd) Send(req vhostuser.Request, flags uint32, payload []byte, fds ...int) {
	f.t.Helper()
	require.NoError(f.t, vhostuser.WriteMessage(f.Conn, &vhostuser.Message{
		Request: req, Flags: flags, Payload: payload, FDs: fds,
	}), "%v", req)
}

// Receive reads the reply to req.
func (f *FrontEnd) Receive(req vhostuser.Request) []byte {
	f.t.Helper()
	m, err := vhostuser.ReadMessage(f.Conn)
	require.NoError(f.t, err, "%v", req)
	require.Equal(f.t, req, m.Request)
	require.NotZero(f.t, m.Flags&vhostuser.FlagReply)
	return m.Payload
}

// Get sends a request that has a reply, and returns that.
func (f *FrontEnd) Get(req vhostuser.Request, payload []byte) []byte {
	f.t.Helper()
	f.Send(req, 0, payload)
	return f.Receive(req)
}

// Set sends a request that has none, and reports whether it was accepted. The
// protocol feature REPLY_ACK must have been negotiated.
func (f *FrontEnd) Set(req vhostuser.Request, payload []byte, fds ...int) bool {
	f.t.Helper()
	f.Send(req, vhostuser.FlagNeedReply, payload, fds...)
	return binary.LittleEndian.Uint64(f.Receive(req)) == 0
}

// MustSet is Set of what cannot be refused.
func (f *FrontEnd) MustSet(req vhostuser.Request, payload []byte, fds ...int) {
	f.t.Helper()
	require.True(f.t, f.Set(req, payload, fds...), "%v was refused", req)
}

// Handshake does what QEMU does before it knows of any queue, accepts the given
// features, and shares the memory. It returns the features offered.
func (f *FrontEnd) Handshake(features uint64) (offered uint64) {
	f.t.Helper()
	offered = binary.LittleEndian.Uint64(f.Get(vhostuser.GetFeatures, nil))
	protocol := f.Get(vhostuser.GetProtocolFeatures, nil)
	f.Send(vhostuser.SetProtocolFeatures, 0, protocol)
	f.Get(vhostuser.GetQueueNum, nil)
	f.MustSet(vhostuser.SetOwner, nil)
	f.MustSet(vhostuser.SetFeatures, Words(features|1<<30))
	table, fds := f.MemTable()
	f.MustSet(vhostuser.SetMemTable, table, fds...)
	return offered
}

// MemTable returns the payload and the descriptors of SET_MEM_TABLE.
func (f *FrontEnd) MemTable() (table []byte, fds []int) {
	half := uint64(len(f.Mem)) / 2 &^ 4095
	table = Words(2,
		GuestBase, half, UserBase, 0,
		GuestBase+half, uint64(len(f.Mem))-half, UserBase+half, half)
	return table, []int{int(f.file.Fd()), int(f.file.Fd())}
}

// Words encodes 64-bit words, as payloads consist of.
func Words(words ...uint64) []byte {
	var b []byte
	for _, w := range words {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b
}

// State encodes a vring state: a queue and a number.
func State(queue, n int) []byte { return Words(uint64(uint32(queue)) | uint64(n)<<32) }
