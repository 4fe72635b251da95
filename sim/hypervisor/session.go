package hypervisor

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"

	"github.com/dustin/go-humanize/english"

	"github.com/nesim/nesim/pcidev"
	"golang.org/x/sys/unix"
)

// Session implements pcidev.Session, and its methods may also be called at the same time. Each error is a one-line
// text for people and wraps a unix.Errno:
//
//	ENOENT          no such slot, CID or next slot in this session
//	EBUSY           another command is at work on the slot, or its state is not one for this command
//	ENODEV          the session is closed
//	ENOSPC          no slot, region or vCPU left
//	EINVAL, EFAULT  a number that cannot be; memory that is not mapped
//	EEXIST          memory or a vCPU that was given already
//	ENOMEM          memory too small for an enclave
//	EADDRINUSE      a CID in use
//	ECANCELED       the device was reset or closed during the start
//	EIO             the VM could not be started
type Session struct {
	h      *Hypervisor
	mem    pcidev.Memory
	notify func()
	ctx    context.Context // done at Close
	cancel context.CancelFunc

	// Hypervisor.mu guards these.
	closed bool
	slots  map[uint64]*slot
	vcpus  map[uint32]*slot
}

// do runs a command for a slot under the lock, if the slot is there and not busy, and keeps the reason if it is
// refused.
func (s *Session) do(uid uint64, command func(*slot) error) error {
	s.h.mu.Lock()
	sl, err := s.find(uid)
	if err == nil {
		if err = command(sl); err != nil {
			sl.err = err
		}
	}
	s.h.mu.Unlock()
	if err != nil {
		s.h.observe(Event{Kind: CommandRefused, SlotUID: uid, Err: err})
	}
	return err
}

// find returns a slot that is not busy. h.mu is held.
func (s *Session) find(uid uint64) (*slot, error) {
	sl := s.slots[uid]
	switch {
	case s.closed:
		return nil, refuse(unix.ENODEV, "the NE device is closed")
	case sl == nil:
		return nil, refuse(unix.ENOENT, "no slot with uid %#x", uid)
	case sl.busy:
		return nil, refuse(unix.EBUSY, "another command is at work on slot %#x: wait for it", uid)
	}
	return sl, nil
}

// wantInit returns an error if the slot is not in state init.
func (sl *slot) wantInit(what string) error {
	if sl.state != pcidev.StateInit {
		return refuse(unix.EBUSY, "%s: the enclave of slot %#x was started already", what, sl.uid)
	}
	return nil
}

// SlotAlloc makes a slot in state init.
func (s *Session) SlotAlloc() (uint64, error) {
	uid, err := s.slotAlloc()
	if err != nil {
		s.h.observe(Event{Kind: CommandRefused, Err: err})
		return 0, err
	}
	s.h.observe(Event{Kind: SlotAllocated, SlotUID: uid})
	return uid, nil
}

func (s *Session) slotAlloc() (uint64, error) {
	h := s.h
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case s.closed:
		return 0, refuse(unix.ENODEV, "the NE device is closed")
	case len(h.slots) >= h.cfg.Slots:
		return 0, refuse(unix.ENOSPC, "%s in use: terminate an enclave first",
			english.PluralWord(h.cfg.Slots, "the only enclave slot is", fmt.Sprintf("all %d enclave slots are", h.cfg.Slots)))
	}
	uid, err := h.newUID()
	if err != nil {
		return 0, &refusal{unix.EIO, "make a slot uid", err}
	}
	sl := &slot{uid: uid, session: s, state: pcidev.StateInit, mem: donation{mem: s.mem}}
	s.slots[uid], h.slots[uid] = sl, sl
	return uid, nil
}

// SlotAddMem takes a region of the parent's memory: 2 MiB aligned, mapped for DMA, and in no other slot.
func (s *Session) SlotAddMem(uid, paddr, size uint64) error {
	const what = "add memory"
	r := region{paddr, size}
	mapped := size > 0 && size <= math.MaxUint64-paddr && s.mem.Mapped(paddr, size)
	return s.do(uid, func(sl *slot) error {
		if err := sl.wantInit(what); err != nil {
			return err
		}
		switch {
		case size == 0 || size%regionAlign != 0 || paddr%regionAlign != 0 || size > math.MaxUint64-paddr:
			return refuse(unix.EINVAL, "%s: region %#x of %d bytes is not made of whole 2 MiB pages", what, paddr, size)
		case size > uint64(math.MaxInt64-sl.mem.size):
			return refuse(unix.EINVAL, "%s: region %#x of %d bytes is too large", what, paddr, size)
		case !mapped:
			return refuse(unix.EFAULT, "%s: region %#x of %d bytes is not all mapped for the device's DMA", what, paddr, size)
		case len(sl.mem.regions) >= pcidev.MaxMemRegions:
			return refuse(unix.ENOSPC, "%s: slot %#x has %d regions already, the most there may be", what, uid, pcidev.MaxMemRegions)
		}
		for _, other := range s.slots {
			if slices.ContainsFunc(other.mem.regions, r.overlaps) {
				return refuse(unix.EEXIST, "%s: region %#x of %d bytes overlaps one of slot %#x", what, paddr, size, other.uid)
			}
		}
		sl.mem.regions = append(sl.mem.regions, r)
		sl.mem.size += int64(size)
		return nil
	})
}

// SlotAddVCPU takes a vCPU of the parent.
func (s *Session) SlotAddVCPU(uid uint64, vcpu uint32) error {
	return s.do(uid, func(sl *slot) error {
		if err := sl.wantInit("add vCPU"); err != nil {
			return err
		}
		switch {
		case vcpu == 0:
			return refuse(unix.EINVAL, "add vCPU: vCPU 0 stays with the parent")
		case vcpu >= s.h.cfg.VCPUs:
			return refuse(unix.EINVAL, "add vCPU: there is no vCPU %d, the last is %d", vcpu, s.h.cfg.VCPUs-1)
		case s.vcpus[vcpu] != nil:
			return refuse(unix.EEXIST, "add vCPU: vCPU %d is in slot %#x already", vcpu, s.vcpus[vcpu].uid)
		}
		sl.addVCPU(vcpu)
		return nil
	})
}

// SlotAddBulkVCPUs takes so many vCPUs of the parent, the first that are free.
func (s *Session) SlotAddBulkVCPUs(uid, n uint64) error {
	return s.do(uid, func(sl *slot) error {
		if err := sl.wantInit("add vCPUs"); err != nil {
			return err
		}
		free := uint64(s.h.cfg.VCPUs) - 1 - uint64(len(s.vcpus))
		switch {
		case n == 0:
			return refuse(unix.EINVAL, "add vCPUs: 0 are none")
		case n > free:
			return refuse(unix.ENOSPC, "add vCPUs: %d are wanted, %d are free", n, free)
		}
		for vcpu := uint32(1); n > 0; vcpu++ {
			if s.vcpus[vcpu] == nil {
				sl.addVCPU(vcpu)
				n--
			}
		}
		return nil
	})
}

func (sl *slot) addVCPU(vcpu uint32) {
	sl.vcpus = append(sl.vcpus, vcpu)
	sl.session.vcpus[vcpu] = sl
}

// SlotCount counts the session's slots.
func (s *Session) SlotCount() (uint64, error) {
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	return uint64(len(s.slots)), nil
}

// SlotInfo describes a slot.
func (s *Session) SlotInfo(uid uint64) (pcidev.SlotInfo, error) {
	return s.info(func(sl *slot) bool { return sl.uid == uid }, "no slot with uid %#x", uid)
}

// NextSlot describes the slot with the next larger uid; 0 begins.
func (s *Session) NextSlot(uid uint64) (pcidev.SlotInfo, error) {
	return s.info(func(sl *slot) bool { return sl.uid > uid }, "no slot after uid %#x", uid)
}

// EnclaveGetSlot describes the slot whose enclave has the CID.
func (s *Session) EnclaveGetSlot(cid uint64) (pcidev.SlotInfo, error) {
	return s.info(func(sl *slot) bool { return cid != 0 && uint64(sl.cid) == cid }, "no enclave with CID %d", cid)
}

// info describes the slot with the smallest uid that matches.
func (s *Session) info(match func(*slot) bool, none string, number uint64) (pcidev.SlotInfo, error) {
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	var found *slot
	for _, sl := range s.slots {
		if match(sl) && (found == nil || sl.uid < found.uid) {
			found = sl
		}
	}
	if found == nil {
		return pcidev.SlotInfo{}, refuse(unix.ENOENT, none, number)
	}
	return found.info(), nil
}

// SlotFree gives the slot's memory back, zeroed, and its vCPUs and CID.
func (s *Session) SlotFree(uid uint64) error {
	var sl *slot
	err := s.do(uid, func(found *slot) error {
		if found.state == pcidev.StateRunning {
			return refuse(unix.EBUSY, "free slot %#x: its enclave is running: stop it first", uid)
		}
		sl, found.busy = found, true
		return nil
	})
	if err != nil {
		return err
	}
	sl.free()
	return nil
}

// free takes a busy slot, whose VM has ended if it had one, out of its session.
func (sl *slot) free() {
	s, h := sl.session, sl.session.h
	for _, r := range sl.mem.regions {
		_ = s.mem.Zero(r.paddr, r.size) // memory that the driver unmapped before is its own
	}
	h.mu.Lock()
	h.releaseCID(sl)
	for _, vcpu := range sl.vcpus {
		delete(s.vcpus, vcpu)
	}
	delete(s.slots, sl.uid)
	delete(h.slots, sl.uid)
	sl.busy = false
	h.idle.Broadcast()
	h.mu.Unlock()
	h.observe(Event{Kind: SlotFreed, SlotUID: sl.uid})
}

// Reset ends the session's enclaves and frees its slots.
func (s *Session) Reset() error {
	s.h.mu.Lock()
	slots := slices.Collect(maps.Values(s.slots))
	s.h.mu.Unlock()
	var wg sync.WaitGroup
	for _, sl := range slots {
		wg.Go(sl.end)
	}
	wg.Wait()
	return nil
}

// end stops and frees a slot, whatever is going on with it.
func (sl *slot) end() {
	s, h := sl.session, sl.session.h
	h.mu.Lock()
	for sl.busy {
		if sl.cancel != nil {
			sl.cancel()
		}
		h.idle.Wait()
	}
	if s.slots[sl.uid] != sl {
		h.mu.Unlock()
		return // freed meanwhile
	}
	sl.busy = true
	running := sl.state == pcidev.StateRunning
	sl.asked = sl.asked || running
	h.mu.Unlock()
	if running {
		sl.stop()
	}
	sl.free()
}

// Close ends the session as Reset does; afterwards every command returns ENODEV. A second Close waits for the first.
func (s *Session) Close() error {
	s.h.mu.Lock()
	s.closed = true
	s.h.mu.Unlock()
	s.cancel()
	err := s.Reset()
	s.h.mu.Lock()
	delete(s.h.sessions, s)
	s.h.mu.Unlock()
	return err
}
