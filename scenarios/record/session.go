package record

import (
	"fmt"
	"slices"
	"sort"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/pcidev"
	"github.com/nesim/nesim/sim/nedriver"
)

// session is a driver on a model of the device.
type session struct {
	device  *pcidev.Device
	memory  *memory
	raised  vectors
	regions map[uint64][][2]uint64 // by slot uid: address and size of each
}

// replyTimeout bounds the wait for a reply, on the virtual clock.
const replyTimeout = time.Hour

func newSession(hv pcidev.Hypervisor) (s *session, err error) {
	s = &session{memory: newMemory(), regions: make(map[uint64][][2]uint64)}
	for i := range s.raised {
		s.raised[i] = make(chan struct{}, 1)
	}
	if s.device, err = pcidev.NewDevice(hv, s.memory, s.raised); err != nil {
		return nil, err
	}
	return s, s.enable()
}

func (s *session) close() { _ = s.device.Close() }

func (s *session) enable() error {
	if err := s.device.RegionWrite(pcidev.BAR, pcidev.NEVersion, []byte{pcidev.NEVersionMax, 0}); err != nil {
		return err
	}
	return s.device.RegionWrite(pcidev.BAR, pcidev.NEEnable, []byte{pcidev.NEEnableOn})
}

// restart switches the device off and on again.
func (s *session) restart() error {
	if err := s.device.RegionWrite(pcidev.BAR, pcidev.NEEnable, []byte{pcidev.NEEnableOff}); err != nil {
		return err
	}
	for state := []byte{pcidev.NEEnableOn}; state[0] != pcidev.NEEnableOff; time.Sleep(time.Millisecond) {
		if err := s.device.RegionRead(pcidev.BAR, pcidev.NEEnable, state); err != nil {
			return err
		}
	}
	clear(s.regions)
	return s.enable()
}

func (s *session) do(req pcidev.Request) (reply pcidev.Reply, err error) {
	if err := s.device.RegionWrite(pcidev.BAR, pcidev.NESendData, req.Append(nil)); err != nil {
		return reply, err
	}
	if err := s.device.RegionWrite(pcidev.BAR, pcidev.NECommand, le.AppendUint32(nil, uint32(req.Command()))); err != nil {
		return reply, err
	}
	select {
	case <-s.raised[pcidev.NEVecReply]:
	case <-time.After(replyTimeout):
		return reply, fmt.Errorf("no reply in %v", replyTimeout)
	}
	b := make([]byte, pcidev.ReplySize)
	if err := s.device.RegionRead(pcidev.BAR, pcidev.NERecvData, b); err != nil {
		return reply, err
	}
	return reply, reply.Decode(b)
}

// load puts an image where the hypervisor looks for it.
func (s *session) load(uid uint64) error {
	off := uint64(nedriver.EIFLoadOffset)
	for _, r := range s.regions[uid] {
		if off < r[1] {
			return s.memory.WriteAt(standIn, r[0]+off)
		}
		off -= r[1]
	}
	return nil // too little memory: as recorded
}

// vectors are MSI-X vectors that are channels.
type vectors [pcidev.NumVectors]chan struct{}

func (v vectors) Trigger(n int) {
	select {
	case v[n] <- struct{}{}:
	default:
	}
}

func (v vectors) Pending(int) bool { return false }
func (v vectors) ClearPending()    {}

// memory is the parent's, as far as it was donated. What was never written takes no room.
type memory struct {
	mu     sync.Mutex // a leaf; slots are freed at the same time
	shared []region   // by address; none touches the next
	pages  map[uint64]*[page]byte
}

const page = 64 << 10

// region is memory from start up to end.
type region struct{ start, end uint64 }

func newMemory() *memory { return &memory{pages: make(map[uint64]*[page]byte)} }

func (m *memory) share(addr, size uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if size == 0 || addr+size <= addr {
		return
	}
	// What it overlaps or touches becomes one with it.
	from := sort.Search(len(m.shared), func(i int) bool { return m.shared[i].end >= addr })
	to := sort.Search(len(m.shared), func(i int) bool { return m.shared[i].start > addr+size })
	whole := region{addr, addr + size}
	if from < to {
		whole = region{min(addr, m.shared[from].start), max(addr+size, m.shared[to-1].end)}
	}
	m.shared = slices.Replace(m.shared, from, to, whole)
}

// Mapped implements pcidev.Memory.
func (m *memory) Mapped(addr, size uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mapped(addr, size)
}

// mapped is Mapped with the lock held. Regions that follow each other count as one.
func (m *memory) mapped(addr, size uint64) bool {
	if size == 0 {
		return true
	}
	i := sort.Search(len(m.shared), func(i int) bool { return m.shared[i].end > addr })
	return i < len(m.shared) && m.shared[i].start <= addr && size <= m.shared[i].end-addr
}

func (m *memory) ReadAt(p []byte, addr uint64) error {
	return m.each(addr, uint64(len(p)), func(have *[page]byte, number, at, done, n uint64) {
		if have != nil {
			copy(p[done:done+n], have[at:])
		} else {
			clear(p[done : done+n])
		}
	})
}

func (m *memory) WriteAt(p []byte, addr uint64) error {
	return m.each(addr, uint64(len(p)), func(have *[page]byte, number, at, done, n uint64) {
		if have == nil {
			have = new([page]byte)
			m.pages[number] = have
		}
		copy(have[at:], p[done:done+n])
	})
}

func (m *memory) Zero(addr, size uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.mapped(addr, size) {
		return unix.EFAULT
	}
	for number, have := range m.pages {
		from, to := max(addr, number*page), min(addr+size, (number+1)*page)
		switch {
		case from >= to:
		case to-from == page:
			delete(m.pages, number)
		default:
			clear(have[from-number*page : to-number*page])
		}
	}
	return nil
}

func (m *memory) each(addr, size uint64, f func(have *[page]byte, number, at, done, n uint64)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.mapped(addr, size) {
		return unix.EFAULT
	}
	for done := uint64(0); done < size; {
		number, at := (addr+done)/page, (addr+done)%page
		n := min(page-at, size-done)
		f(m.pages[number], number, at, done, n)
		done += n
	}
	return nil
}

var _ pcidev.Memory = (*memory)(nil)
