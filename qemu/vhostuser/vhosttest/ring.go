package vhosttest

import (
	"encoding/binary"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/qemu/vhostuser"
)

// Flags of a descriptor: include/uapi/linux/virtio_ring.h.
const (
	DescNext     = 1
	DescWrite    = 2
	DescIndirect = 4
)

// Ring is a driver's view of one queue. It keeps to the rules of notification, but
// leaves it to the test what goes into the ring.
type Ring struct {
	Desc, Avail, Used []byte // in the guest's memory
	Addr              uint64 // guest physical address of Desc; Avail and Used follow

	Kicks, Calls int // that were needed so far

	f        *FrontEnd
	index    int
	num      int
	eventIdx bool
	kick     *os.File
	call     *os.File
	err      *os.File
	offered  uint16
	kicked   uint16
	used     uint16
}

// NewRing lays out a queue of num entries in the guest's memory.
func (f *FrontEnd) NewRing(index, num int, features uint64) *Ring {
	r := &Ring{f: f, index: index, num: num, eventIdx: features&vhostuser.FeatureEventIdx != 0}
	r.Desc, r.Addr = f.Alloc(16 * num)
	r.Avail, _ = f.Alloc(6 + 2*num)
	r.Used, _ = f.Alloc(6 + 8*num)
	r.kick, r.call, r.err = r.eventfd(), r.eventfd(), r.eventfd()
	return r
}

func (r *Ring) eventfd() *os.File {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	require.NoError(r.f.t, err)
	file := os.NewFile(uintptr(fd), "eventfd")
	r.f.t.Cleanup(func() { file.Close() })
	return file
}

// rawFD is the descriptor in file, without the side effects of Fd.
func rawFD(file *os.File) (fd int) {
	raw, _ := file.SyscallConn()
	raw.Control(func(p uintptr) { fd = int(p) })
	return fd
}

// user returns the front end's address of a piece of its memory.
func (r *Ring) user(b []byte) uint64 {
	return UserBase + uint64(uintptr(unsafe.Pointer(&b[0]))-uintptr(unsafe.Pointer(&r.f.Mem[0])))
}

// Start starts the queue as QEMU does, at a place in the available ring. It reports
// whether the back end took it.
func (r *Ring) Start(base int) bool {
	r.f.t.Helper()
	f := r.f
	f.MustSet(vhostuser.SetVringNum, State(r.index, r.num))
	f.MustSet(vhostuser.SetVringBase, State(r.index, base))
	f.MustSet(vhostuser.SetVringAddr, Words(uint64(r.index), r.user(r.Desc), r.user(r.Used), r.user(r.Avail), 0))
	f.MustSet(vhostuser.SetVringErr, Words(uint64(r.index)), rawFD(r.err))
	f.MustSet(vhostuser.SetVringKick, Words(uint64(r.index)), rawFD(r.kick))
	f.MustSet(vhostuser.SetVringCall, Words(uint64(r.index)), rawFD(r.call))
	return f.Set(vhostuser.SetVringEnable, State(r.index, 1))
}

// Stop stops the queue and returns where it stopped.
func (r *Ring) Stop() int {
	reply := r.f.Get(vhostuser.GetVringBase, State(r.index, 0))
	return int(binary.LittleEndian.Uint32(reply[4:]))
}

// SetDesc writes a descriptor.
func (r *Ring) SetDesc(i int, addr uint64, n uint32, flags, next uint16) {
	PutDesc(r.Desc, i, addr, n, flags, next)
}

// PutDesc writes the i-th descriptor of a table.
func PutDesc(table []byte, i int, addr uint64, n uint32, flags, next uint16) {
	p := table[16*i:]
	binary.LittleEndian.PutUint64(p, addr)
	binary.LittleEndian.PutUint32(p[8:], n)
	binary.LittleEndian.PutUint16(p[12:], flags)
	binary.LittleEndian.PutUint16(p[14:], next)
}

// Offer makes the chain that begins at head available.
func (r *Ring) Offer(head int) {
	binary.LittleEndian.PutUint16(r.Avail[4+2*(int(r.offered)%r.num):], uint16(head))
	r.offered++
	r.SetAvail(0, r.offered)
}

// SetAvail sets the flags and the index of the available ring.
func (r *Ring) SetAvail(flags, idx uint16) {
	atomic.StoreUint32(word(r.Avail), uint32(flags)|uint32(idx)<<16)
}

// Offered is how many chains have been made available.
func (r *Ring) Offered() uint16 { return r.offered }

// Kick tells the back end about new chains if it wants to hear of them.
func (r *Ring) Kick() {
	old, now := r.kicked, r.offered
	r.kicked = now
	flags := uint16(atomic.LoadUint32(word(r.Used)))
	wanted := flags&1 == 0
	if r.eventIdx {
		event := binary.LittleEndian.Uint16(r.Used[4+8*r.num:])
		wanted = now-event-1 < now-old
	}
	if wanted {
		r.ForceKick()
	}
}

// ForceKick kicks in any case.
func (r *Ring) ForceKick() {
	r.Kicks++
	r.kick.Write([]byte{1, 0, 0, 0, 0, 0, 0, 0})
}

// Pop returns the next used element, if there is one.
func (r *Ring) Pop() (head, n int, ok bool) {
	if uint16(atomic.LoadUint32(word(r.Used))>>16) == r.used {
		return 0, 0, false
	}
	p := r.Used[4+8*(int(r.used)%r.num):]
	r.used++
	return int(binary.LittleEndian.Uint32(p)), int(binary.LittleEndian.Uint32(p[4:])), true
}

// Wait returns the next used element; it waits for the back end's call.
func (r *Ring) Wait() (head, n int) {
	for {
		if head, n, ok := r.Pop(); ok {
			return head, n
		}
		if r.eventIdx {
			binary.LittleEndian.PutUint16(r.Avail[4+2*r.num:], r.used)
		}
		r.SetAvail(0, r.offered) // a full barrier, too
		if head, n, ok := r.Pop(); ok {
			return head, n
		}
		var b [8]byte
		r.call.SetReadDeadline(time.Now().Add(time.Minute))
		_, err := r.call.Read(b[:])
		require.NoError(r.f.t, err, "queue %d: wait for a call", r.index)
		r.Calls++
	}
}

// WaitError waits until the back end reports the queue broken.
func (r *Ring) WaitError() {
	var b [8]byte
	r.err.SetReadDeadline(time.Now().Add(time.Minute))
	_, err := r.err.Read(b[:])
	require.NoError(r.f.t, err, "queue %d: wait for an error", r.index)
}

func word(b []byte) *uint32 { return (*uint32)(unsafe.Pointer(&b[0])) }
