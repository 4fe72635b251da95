package pcidev

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// fakeHypervisor hands out fakeSessions.
type fakeHypervisor struct {
	mu       sync.Mutex
	sessions []*fakeSession
	refuse   error
}

func (h *fakeHypervisor) Attach(mem Memory, notify func()) (Session, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.refuse != nil {
		return nil, h.refuse
	}
	s := &fakeSession{mem: mem, notify: notify, closed: make(chan struct{})}
	h.sessions = append(h.sessions, s)
	return s, nil
}

// fakeSession records calls and answers with fixed values, or err.
type fakeSession struct {
	mem    Memory
	notify func()
	closed chan struct{}

	mu     sync.Mutex
	calls  []string
	err    error
	block  chan struct{} // EnclaveStart and Reset wait for it, if not nil
	inside int           // calls under way
}

// call records a call; two at a time are a fault of the device.
func (s *fakeSession) call(format string, args ...any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inside++; s.inside > 1 {
		panic("calls of a session overlap")
	}
	s.calls = append(s.calls, fmt.Sprintf(format, args...))
	return s.err
}

func (s *fakeSession) done() {
	s.mu.Lock()
	s.inside--
	s.mu.Unlock()
}

func (s *fakeSession) set(err error, block chan struct{}) {
	s.mu.Lock()
	s.err, s.block = err, block
	s.mu.Unlock()
}

func (s *fakeSession) wait() {
	s.mu.Lock()
	block := s.block
	s.mu.Unlock()
	if block != nil {
		<-block
	}
}

// taken returns the calls since the last taken.
func (s *fakeSession) taken() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := s.calls
	s.calls = nil
	return calls
}

var fakeSlot = SlotInfo{SlotUID: 7, EnclaveCID: 16, MemRegions: 2, MemSize: 64 << 20, NrVCPUs: 2, Flags: 1, State: StateRunning}

func (s *fakeSession) SlotAlloc() (uint64, error) {
	defer s.done()
	return 7, s.call("SlotAlloc")
}

func (s *fakeSession) SlotFree(uid uint64) error {
	defer s.done()
	return s.call("SlotFree %d", uid)
}

func (s *fakeSession) SlotAddMem(uid, paddr, size uint64) error {
	defer s.done()
	if err := s.call("SlotAddMem %d %#x %#x", uid, paddr, size); err != nil {
		return err
	}
	if !s.mem.Mapped(paddr, size) {
		return fmt.Errorf("memory is not mapped: %w", unix.EFAULT)
	}
	return nil
}

func (s *fakeSession) SlotAddVCPU(uid uint64, cpu uint32) error {
	defer s.done()
	return s.call("SlotAddVCPU %d %d", uid, cpu)
}

func (s *fakeSession) SlotAddBulkVCPUs(uid, n uint64) error {
	defer s.done()
	return s.call("SlotAddBulkVCPUs %d %d", uid, n)
}

func (s *fakeSession) SlotCount() (uint64, error) {
	defer s.done()
	return 3, s.call("SlotCount")
}

func (s *fakeSession) NextSlot(uid uint64) (SlotInfo, error) {
	defer s.done()
	return fakeSlot, s.call("NextSlot %d", uid)
}

func (s *fakeSession) SlotInfo(uid uint64) (SlotInfo, error) {
	defer s.done()
	return fakeSlot, s.call("SlotInfo %d", uid)
}

func (s *fakeSession) EnclaveStart(uid, cid, flags uint64) (uint64, error) {
	defer s.done()
	err := s.call("EnclaveStart %d %d %d", uid, cid, flags)
	s.wait()
	return 16, err
}

func (s *fakeSession) EnclaveGetSlot(cid uint64) (SlotInfo, error) {
	defer s.done()
	return fakeSlot, s.call("EnclaveGetSlot %d", cid)
}

func (s *fakeSession) EnclaveStop(uid uint64) error {
	defer s.done()
	return s.call("EnclaveStop %d", uid)
}

func (s *fakeSession) Reset() error {
	defer s.done()
	err := s.call("Reset")
	s.wait()
	return err
}

func (s *fakeSession) Close() error {
	defer s.done()
	s.call("Close")
	close(s.closed)
	return nil
}

// quietSession is a fakeSession that keeps no record: for benchmarks and fuzzing.
type quietSession struct{ fakeSession }

func (*quietSession) SlotInfo(uint64) (SlotInfo, error) { return fakeSlot, nil }

// quietHypervisor hands out quietSessions.
type quietHypervisor struct{}

func (quietHypervisor) Attach(mem Memory, notify func()) (Session, error) {
	return &quietSession{fakeSession{mem: mem, notify: notify, closed: make(chan struct{})}}, nil
}
