package hypervisor

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/nesim/nesim/eif"
	"github.com/nesim/nesim/pcidev"
)

const (
	// DefaultSlots is how many enclaves AWS lets a parent instance have at a time.
	DefaultSlots = 4
	// DefaultVCPUs bounds vCPU ids where Config does not.
	DefaultVCPUs = 1024
	// firstCID is where the choice of CIDs begins; nitro-cli's examples show such.
	firstCID uint32 = 16
)

// Config says what a Hypervisor has to give.
type Config struct {
	VMM   VMM
	Slots int    // slots there are, of all sessions together; 0 means DefaultSlots
	VCPUs uint32 // vCPU ids of a parent are 1 to VCPUs-1; 0 means DefaultVCPUs

	// Observe is called with what happens, or nil. It is called from several goroutines and must be quick; it may call the
	// Hypervisor.
	Observe func(Event)
	// Rand makes slot uids; nil means crypto/rand.
	Rand io.Reader
}

// Hypervisor implements pcidev.Hypervisor.
type Hypervisor struct {
	cfg Config
	wg  sync.WaitGroup // goroutines of running slots

	mu       sync.Mutex
	idle     *sync.Cond // on mu: a slot is no longer busy
	closed   bool
	sessions map[*Session]struct{}
	slots    map[uint64]*slot // of all sessions
	cids     map[uint32]*slot
	nextCID  uint32
}

var _ pcidev.Hypervisor = (*Hypervisor)(nil)

// New returns a Hypervisor without sessions. Close ends it.
func New(cfg Config) *Hypervisor {
	if cfg.Slots == 0 {
		cfg.Slots = DefaultSlots
	}
	if cfg.VCPUs == 0 {
		cfg.VCPUs = DefaultVCPUs
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	h := &Hypervisor{
		cfg:      cfg,
		sessions: map[*Session]struct{}{},
		slots:    map[uint64]*slot{},
		cids:     map[uint32]*slot{},
		nextCID:  firstCID,
	}
	h.idle = sync.NewCond(&h.mu)
	return h
}

// Attach begins a parent's session. The error is net.ErrClosed after Close.
func (h *Hypervisor) Attach(mem pcidev.Memory, notify func()) (pcidev.Session, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, net.ErrClosed
	}
	s := &Session{h: h, mem: mem, notify: notify, slots: map[uint64]*slot{}, vcpus: map[uint32]*slot{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	h.sessions[s] = struct{}{}
	return s, nil
}

// Close ends all sessions, as their own Close does, and waits until nothing is left.
func (h *Hypervisor) Close() error {
	h.mu.Lock()
	h.closed = true
	sessions := slices.Collect(maps.Keys(h.sessions))
	h.mu.Unlock()
	var wg sync.WaitGroup
	for _, s := range sessions {
		wg.Go(func() { s.Close() })
	}
	wg.Wait()
	h.wg.Wait()
	return nil
}

// SlotStatus is what the hypervisor knows of a slot.
type SlotStatus struct {
	pcidev.SlotInfo
	Measurements *eif.Measurements // of the last image that was found good
	Unbootable   error             // why the enclave that was started does nothing, or nil
	Exit         *Exit             // how the enclave ended, in state stopped
	EndedAt      time.Time         // when, in state stopped
	Err          error             // why a command for the slot was refused, the last time that happened
}

// Slot describes a slot of any session, as long as it is not freed.
func (h *Hypervisor) Slot(uid uint64) (SlotStatus, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	sl := h.slots[uid]
	if sl == nil {
		return SlotStatus{}, false
	}
	return sl.status(), true
}

// Slots describes all slots, in the order of their uids.
func (h *Hypervisor) Slots() []SlotStatus {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []SlotStatus
	for _, uid := range slices.Sorted(maps.Keys(h.slots)) {
		out = append(out, h.slots[uid].status())
	}
	return out
}

// SlotError says why a command for the slot was refused, the last time that happened, or nil. The driver gets only
// the errno of it.
func (h *Hypervisor) SlotError(uid uint64) error {
	s, _ := h.Slot(uid)
	return s.Err
}

// newUID makes a slot uid that is neither 0 (which the driver takes for none) nor in use. h.mu is held.
func (h *Hypervisor) newUID() (uint64, error) {
	var b [8]byte
	for {
		if _, err := io.ReadFull(h.cfg.Rand, b[:]); err != nil {
			return 0, err
		}
		if uid := binary.LittleEndian.Uint64(b[:]); uid != 0 && h.slots[uid] == nil {
			return uid, nil
		}
	}
}
