package vhostuser

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"

	"golang.org/x/sys/unix"
)

// memory is the guest's memory: a few mapped regions. It never changes; a new
// table makes a new memory.
type memory struct {
	regions []region
}

// region is one entry of SET_MEM_TABLE ("Memory region description").
type region struct {
	guest uint64 // guest physical address of its first byte
	user  uint64 // the same byte's address in the front end's own address space
	data  []byte // its bytes
	mmap  []byte // what munmap needs: data, extended to whole pages
}

const regionSize = 32

// newMemory maps the regions that payload (of SET_MEM_TABLE) describes, each from
// its descriptor of fds, which stay the caller's.
func newMemory(payload []byte, fds []int) (*memory, error) {
	if len(payload) < 8 {
		return nil, fmt.Errorf("payload of %d bytes is too short for a memory table", len(payload))
	}
	n := int(min(binary.LittleEndian.Uint32(payload), MaxRegions+1))
	switch {
	case n > MaxRegions:
		return nil, fmt.Errorf("more than %d memory regions", MaxRegions)
	case len(payload) < 8+n*regionSize:
		return nil, fmt.Errorf("payload of %d bytes is too short for %d memory regions", len(payload), n)
	case len(fds) != n:
		return nil, fmt.Errorf("%d memory regions with %d descriptors", n, len(fds))
	}
	m := &memory{}
	for i := range n {
		r, err := mapRegion(payload[8+i*regionSize:], fds[i])
		if err == nil {
			err = m.add(r)
		}
		if err != nil {
			m.close()
			return nil, fmt.Errorf("memory region %d: %w", i, err)
		}
	}
	return m, nil
}

// add takes r, or unmaps it when it overlaps another region.
func (m *memory) add(r region) error {
	for i := range m.regions {
		o := &m.regions[i]
		if overlap(r.guest, o.guest, r, *o) || overlap(r.user, o.user, r, *o) {
			unix.Munmap(r.mmap)
			return errors.New("overlaps another region")
		}
	}
	m.regions = append(m.regions, r)
	return nil
}

func overlap(a, b uint64, x, y region) bool {
	return a < b+uint64(len(y.data)) && b < a+uint64(len(x.data))
}

func mapRegion(p []byte, fd int) (region, error) {
	r := region{guest: binary.LittleEndian.Uint64(p[0:]), user: binary.LittleEndian.Uint64(p[16:])}
	size, offset := binary.LittleEndian.Uint64(p[8:]), binary.LittleEndian.Uint64(p[24:])
	end, carry := bits.Add64(offset, size, 0)
	switch {
	case size == 0:
		return r, errors.New("is empty")
	case carry != 0 || end > math.MaxInt64 || r.guest+size < r.guest || r.user+size < r.user:
		return r, errors.New("its addresses overflow")
	}
	page, err := checkFile(fd, end)
	if err != nil {
		return r, err
	}
	start := offset &^ (page - 1)
	length := (end - start + page - 1) &^ (page - 1)
	r.mmap, err = unix.Mmap(fd, int64(start), int(length), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return r, fmt.Errorf("map guest memory: %w", err)
	}
	r.data = r.mmap[offset-start : end-start : end-start]
	return r, nil
}

// checkFile makes sure that the file holds end bytes and will go on doing so, and
// returns its page size. A file that can still shrink is refused: reading a
// mapping behind the end of its file is a SIGBUS, which no Go program survives.
// QEMU's memory-backend-memfd is sealed unless told otherwise.
func checkFile(fd int, end uint64) (page uint64, err error) {
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err == nil && seals&unix.F_SEAL_SHRINK == 0 {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK)
	}
	if err != nil {
		return 0, fmt.Errorf("guest memory could shrink while it is in use; "+
			"start QEMU with -object memory-backend-memfd,share=on: seal: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, fmt.Errorf("stat guest memory: %w", err)
	}
	if st.Size < 0 || uint64(st.Size) < end {
		return 0, fmt.Errorf("ends at byte %d of a file of %d bytes", end, st.Size)
	}
	page = uint64(unix.Getpagesize())
	if b := uint64(st.Blksize); b > page && bits.OnesCount64(b) == 1 {
		page = b // huge pages
	}
	return page, nil
}

func (m *memory) close() {
	if m == nil {
		return
	}
	for _, r := range m.regions {
		unix.Munmap(r.mmap)
	}
	m.regions = nil
}

// userRange returns the n bytes at an address of the front end's own.
func (m *memory) userRange(addr, n uint64) ([]byte, bool) {
	for i := range m.regions {
		r := &m.regions[i]
		if off := addr - r.user; off < uint64(len(r.data)) && n <= uint64(len(r.data))-off {
			return r.data[off : off+n : off+n], true
		}
	}
	return nil, false
}

// guestRange returns up to n bytes at a guest physical address: fewer when the
// region ends first, none when the address is not in memory.
func (m *memory) guestRange(addr, n uint64) []byte {
	for i := range m.regions {
		r := &m.regions[i]
		if off := addr - r.guest; off < uint64(len(r.data)) {
			end := off + min(n, uint64(len(r.data))-off)
			return r.data[off:end:end]
		}
	}
	return nil
}
