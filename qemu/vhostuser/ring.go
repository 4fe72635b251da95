package vhostuser

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"unsafe"
)

// Sizes and flags of the split virtqueue: virtio 1.2, section 2.7, and
// include/uapi/linux/virtio_ring.h.
const (
	maxQueueSize = 1024 // VIRTQUEUE_MAX_SIZE of QEMU

	descSize = 16 // struct virtq_desc: le64 addr, le32 len, le16 flags, le16 next

	descNext     = 1 // VIRTQ_DESC_F_NEXT
	descWrite    = 2 // VIRTQ_DESC_F_WRITE: for the device to write
	descIndirect = 4 // VIRTQ_DESC_F_INDIRECT

	availNoInterrupt = 1 // VIRTQ_AVAIL_F_NO_INTERRUPT
	usedNoNotify     = 1 // VIRTQ_USED_F_NO_NOTIFY
)

// ring is a split virtqueue's three areas where they lie in guest memory.
//
//	desc   num descriptors
//	avail  le16 flags, le16 idx, le16 ring[num], le16 used_event (with EVENT_IDX)
//	used   le16 flags, le16 idx, {le32 id, le32 len} ring[num], le16 avail_event (with EVENT_IDX)
type ring struct {
	num   uint16 // a power of two
	desc  []byte
	avail []byte
	used  []byte
}

// ringAddr is where a ring lies in the front end's address space.
type ringAddr struct{ desc, avail, used uint64 }

func mapRing(m *memory, num uint16, at ringAddr, eventIdx bool) (ring, error) {
	r := ring{num: num}
	n, event := uint64(num), uint64(0)
	if eventIdx {
		event = 2
	}
	for _, a := range []struct {
		name  string
		area  *[]byte
		addr  uint64
		size  uint64
		align uintptr
	}{
		{"descriptor table", &r.desc, at.desc, descSize * n, 16},
		{"available ring", &r.avail, at.avail, 4 + 2*n + event, 2},
		{"used ring", &r.used, at.used, 4 + 8*n + event, 4},
	} {
		b, ok := m.userRange(a.addr, a.size)
		if !ok {
			return ring{}, fmt.Errorf("%s at %#x (%d bytes) is not in guest memory", a.name, a.addr, a.size)
		}
		if !aligned(b, a.align) {
			return ring{}, fmt.Errorf("%s at %#x is not aligned to %d bytes", a.name, a.addr, a.align)
		}
		*a.area = b
	}
	return r, nil
}

// load16 reads a 16-bit word that the driver may be changing, with acquire
// order. It reads the aligned 32-bit word around it, which lies in the same page.
func load16(b []byte) uint16 {
	_ = b[1]
	p := unsafe.Pointer(&b[0])
	low := uintptr(p) & 2
	return uint16(atomic.LoadUint32((*uint32)(unsafe.Add(p, -int(low)))) >> (8 * low))
}

func (r *ring) availFlags() uint16 { return load16(r.avail) }
func (r *ring) availIdx() uint16   { return load16(r.avail[2:]) }
func (r *ring) usedEvent() uint16  { return load16(r.avail[4+2*int(r.num):]) }
func (r *ring) usedIdx() uint16    { return load16(r.used[2:]) }

// availHead is the head of the chain that the driver offered as its i-th.
func (r *ring) availHead(i uint16) uint16 { return load16(r.avail[4+2*int(i&(r.num-1)):]) }

// setUsed writes the i-th used element; publish makes it visible.
func (r *ring) setUsed(i, head uint16, n uint32) {
	p := r.used[4+8*int(i&(r.num-1)):]
	binary.LittleEndian.PutUint64(p, uint64(head)|uint64(n)<<32)
}

// publish sets the used ring's flags and index. It is a full barrier towards the
// loads that follow it.
func (r *ring) publish(flags, idx uint16) {
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&r.used[0])), uint32(flags)|uint32(idx)<<16)
}

// setAvailEvent asks for a kick once the driver passes idx; publish must follow.
func (r *ring) setAvailEvent(idx uint16) {
	binary.LittleEndian.PutUint16(r.used[4+8*int(r.num):], idx)
}

type descriptor struct {
	addr  uint64
	len   uint32
	flags uint16
	next  uint16
}

// loadDescriptor reads each word of the i-th descriptor exactly once: the driver
// may rewrite it at any time.
func loadDescriptor(table []byte, i uint16) descriptor {
	p := table[descSize*int(i):]
	_ = p[descSize-1]
	addr := atomic.LoadUint64((*uint64)(unsafe.Pointer(&p[0])))
	rest := atomic.LoadUint64((*uint64)(unsafe.Pointer(&p[8])))
	return descriptor{addr: addr, len: uint32(rest), flags: uint16(rest >> 32), next: uint16(rest >> 48)}
}

func aligned(b []byte, n uintptr) bool { return uintptr(unsafe.Pointer(&b[0]))%n == 0 }
