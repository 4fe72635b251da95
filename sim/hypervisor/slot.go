package hypervisor

import (
	"context"
	"math"
	"time"

	"github.com/nesim/nesim/eif"
	"github.com/nesim/nesim/pcidev"
	"golang.org/x/sys/unix"
)

// slot is one enclave's place. Hypervisor.mu guards its fields; mem, vm and ended do not change once they are set.
type slot struct {
	uid     uint64
	session *Session
	busy    bool               // a command that takes long is at work on it
	cancel  context.CancelFunc // ends a start under way

	state uint16 // pcidev.StateInit, StateRunning, StateStopped
	mem   donation
	vcpus []uint32
	flags uint64
	cid   uint32 // 0: none

	vm    VM
	ended chan struct{} // closed when the VM has ended and the state is stopped
	asked bool          // the end was asked for

	measurements *eif.Measurements
	unbootable   error // why the enclave that was started cannot boot
	exit         *Exit
	endedAt      time.Time
	err          error
}

func (sl *slot) info() pcidev.SlotInfo {
	return pcidev.SlotInfo{
		SlotUID:    sl.uid,
		EnclaveCID: uint64(sl.cid),
		MemRegions: uint64(len(sl.mem.regions)),
		MemSize:    uint64(sl.mem.size),
		NrVCPUs:    uint64(len(sl.vcpus)),
		Flags:      sl.flags,
		State:      sl.state,
	}
}

func (sl *slot) status() SlotStatus {
	return SlotStatus{
		SlotInfo: sl.info(), Measurements: sl.measurements, Unbootable: sl.unbootable, Exit: sl.exit, EndedAt: sl.endedAt, Err: sl.err,
	}
}

// reserveCID takes the CID for the slot, or chooses one if it is 0. h.mu is held.
//
// The driver (ne_misc_dev.c, NE_START_ENCLAVE) refuses the same ones before they get here; the device does not rely
// on it.
func (h *Hypervisor) reserveCID(sl *slot, cid uint64) error {
	const parent, anyCID = 3, math.MaxUint32 // NE_PARENT_VM_CID, VMADDR_CID_ANY
	switch {
	case cid == 0:
		for h.nextCID <= parent || h.nextCID == anyCID || h.cids[h.nextCID] != nil {
			h.nextCID++
		}
		cid = uint64(h.nextCID)
		h.nextCID++
	case cid <= parent:
		return refuse(unix.EINVAL, "enclave CID %d is a well-known one: choose one from 4, or 0 to have one chosen", cid)
	case cid == anyCID:
		return refuse(unix.EINVAL, "enclave CID %d means any CID: choose another, or 0 to have one chosen", cid)
	case cid > anyCID:
		return refuse(unix.EINVAL, "enclave CID %d has more than 32 bits: vsock has no such CIDs", cid)
	case h.cids[uint32(cid)] != nil:
		return refuse(unix.EADDRINUSE, "enclave CID %d is in use: choose another, or 0 to have one chosen", cid)
	}
	sl.cid = uint32(cid)
	h.cids[sl.cid] = sl
	return nil
}

func (h *Hypervisor) releaseCID(sl *slot) {
	if sl.cid != 0 {
		delete(h.cids, sl.cid)
		sl.cid = 0
	}
}
