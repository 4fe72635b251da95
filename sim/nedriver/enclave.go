package nedriver

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/pcidev"
)

// minEnclaveMemSize is the least memory an enclave starts with, in bytes.
// Source: NE_MIN_ENCLAVE_MEM_SIZE, drivers/virt/nitro_enclaves/ne_misc_dev.c.
const minEnclaveMemSize = 64 << 20

// CIDs that no enclave may have. Sources: VMADDR_CID_HOST, include/uapi/linux/vm_sockets.h; NE_PARENT_VM_CID,
// drivers/virt/nitro_enclaves/ne_misc_dev.c.
const (
	cidHost     = 2
	cidParentVM = 3
	cidAny      = math.MaxUint32
)

// ErrHangUp is an Enclave's Err after it ended without being asked to.
var ErrHangUp = errors.New("the enclave has ended")

// Enclave is an open enclave file, as NE_CREATE_VM returns it to a process. Its methods may be called from any
// goroutine; after Close those that are ioctls fail with EBADF.
type Enclave struct {
	*enclave
	process *Process
	closed  bool // guarded by pollMu
}

// enclave is what all files of one enclave share.
type enclave struct {
	driver        *Driver
	owner         *Process // who created it, and alone may add resources
	slotUID       uint64
	maxMemRegions uint64

	infoMu       lock
	state        uint16 // pcidev.StateInit, StateRunning, StateStopped, or what else the device says
	cpus         *enclaveCPUs
	regions      []*memRegion
	nrMemRegions uint64 // physical ones
	memSize      uint64 // bytes in the slot
	released     bool   // its resources are given back

	pollMu sync.Mutex
	files  int   // open ones
	event  bool  // to be told by Poll
	err    error // why done is closed
	done   chan struct{}
}

// Dup opens the file once more for p, as when a descriptor is passed to another process. os.ErrClosed after Close.
func (e *Enclave) Dup(p *Process) (*Enclave, error) {
	e.pollMu.Lock()
	closed := e.closed
	if !closed {
		e.files++ // so that the enclave outlives a Close from here on
	}
	e.pollMu.Unlock()
	if closed {
		return nil, os.ErrClosed
	}
	defer e.drop()
	h := &Enclave{enclave: e.enclave, process: p}
	if err := h.open(); err != nil {
		return nil, err
	}
	return h, nil
}

// open enters the file with its process and enclave. ESRCH when the process has ended.
func (e *Enclave) open() error {
	e.process.mu.Lock()
	defer e.process.mu.Unlock()
	if e.process.exited {
		return fmt.Errorf("the process has ended: %w", unix.ESRCH)
	}
	e.process.files = append(e.process.files, e)
	e.pollMu.Lock()
	defer e.pollMu.Unlock()
	e.files++
	return nil
}

func (e *Enclave) isClosed() bool {
	e.pollMu.Lock()
	defer e.pollMu.Unlock()
	return e.closed
}

// SlotUID returns the number of the enclave's slot.
func (e *Enclave) SlotUID() uint64 { return e.slotUID }

// begin locks the enclave for an ioctl that is for enclaves not yet started. Without an error the caller unlocks
// infoMu.
func (e *Enclave) begin() error {
	e.infoMu.Lock()
	err := error(nil)
	switch {
	case e.isClosed():
		err = unix.EBADF
	case e.released:
		err = errUnloaded
	case e.state != pcidev.StateInit:
		err = NEErrNotInInitState
	}
	if err != nil {
		e.infoMu.Unlock()
	}
	return err
}

// AddVCPU gives the enclave a CPU of the pool (NE_ADD_VCPU) and returns its number; vcpuID 0 lets the driver choose
// one. In this order: NEErrNotInInitState, NEErrInvalidVCPU, NEErrVCPUAlreadyUsed, NEErrVCPUNotInCPUPool or
// NEErrNoCPUsAvailInPool, NEErrVCPUInvalidCPUCore, EIO for a process that did not create the enclave, and the
// device's errors. The core stays the enclave's even after the last two.
func (e *Enclave) AddVCPU(vcpuID uint32) (uint32, error) {
	cpu, err := e.addVCPU(vcpuID)
	if err != nil && vcpuID == 0 {
		return 0, fmt.Errorf("add a vCPU: %w", err)
	} else if err != nil {
		return 0, fmt.Errorf("add CPU %d to the enclave: %w", vcpuID, err)
	}
	return cpu, nil
}

func (e *Enclave) addVCPU(vcpuID uint32) (uint32, error) {
	if err := e.begin(); err != nil {
		return 0, err
	}
	defer e.infoMu.Unlock()
	cpu, err := e.cpus.take(vcpuID)
	if err != nil {
		return 0, err
	}
	if e.process != e.owner {
		return 0, errOtherProcess
	}
	if _, err := e.driver.dev.do(pcidev.SlotAddVCPUReq{SlotUID: e.slotUID, VCPUID: cpu}); err != nil {
		return 0, err
	}
	e.cpus.vcpus[cpu] = true
	return cpu, nil
}

var errOtherProcess = fmt.Errorf("another process created the enclave: %w", unix.EIO)

// GetImageLoadInfo returns where in enclave memory an image begins, in bytes (NE_GET_IMAGE_LOAD_INFO). flags is
// NEEIFImage. NEErrNotInInitState, NEErrInvalidFlagValue.
func (e *Enclave) GetImageLoadInfo(flags uint64) (memoryOffset uint64, err error) {
	if err = e.begin(); err == nil {
		e.infoMu.Unlock()
		if flags == 0 || flags >= imageLoadMaxFlagVal {
			err = NEErrInvalidFlagValue
		}
	}
	if err != nil {
		return 0, fmt.Errorf("get image load info, flags %#x: %w", flags, err)
	}
	return EIFLoadOffset, nil
}

// SetUserMemoryRegion gives the enclave memory of the process (NE_SET_USER_MEMORY_REGION). In this order:
// NEErrInvalidFlagValue, NEErrNotInInitState, EIO for a process that did not create the enclave,
// NEErrInvalidMemRegionSize, NEErrUnalignedMemRegionAddr, NEErrInvalidMemRegionAddr, NEErrMemRegionAlreadyUsed,
// ENOMEM for a region without pages or with too many; for each page EFAULT, NEErrMemNotHugePage,
// NEErrInvalidPageSize, NEErrMemDifferentNUMANode, EINVAL for physical memory off the 2 MiB granule; then
// NEErrMemMaxRegions, and the device's errors. A page that is larger than what is left of the region is given whole.
func (e *Enclave) SetUserMemoryRegion(r UserMemoryRegion) error {
	if err := e.setUserMemoryRegion(r); err != nil {
		return fmt.Errorf("set memory region of %d bytes at %#x: %w", r.MemorySize, r.UserspaceAddr, err)
	}
	return nil
}

func (e *Enclave) setUserMemoryRegion(r UserMemoryRegion) error {
	if r.Flags >= memoryRegionMaxFlagVal {
		return NEErrInvalidFlagValue
	}
	if err := e.begin(); err != nil {
		return err
	}
	defer e.infoMu.Unlock()
	if err := e.checkUserMemRegion(r); err != nil {
		return err
	}
	region := &memRegion{addr: r.UserspaceAddr, size: r.MemorySize}
	if err := e.prepare(region); err != nil {
		return join(err, region.release(e.driver.dma))
	}
	e.regions = append(e.regions, region) // kept after an error too: the device may have some of it
	return e.donate(region)
}

// checkUserMemRegion checks a region before its pages are looked at.
func (e *Enclave) checkUserMemRegion(r UserMemoryRegion) error {
	switch {
	case e.process != e.owner:
		return errOtherProcess
	case r.MemorySize%minMemRegionSize != 0:
		return NEErrInvalidMemRegionSize
	case r.UserspaceAddr%minMemRegionSize != 0:
		return NEErrUnalignedMemRegionAddr
	case r.MemorySize > userEnd || r.UserspaceAddr > userEnd-r.MemorySize:
		return NEErrInvalidMemRegionAddr
	}
	for _, region := range e.regions {
		if region.overlaps(r.UserspaceAddr, r.MemorySize) {
			return NEErrMemRegionAlreadyUsed
		}
	}
	return nil
}

// prepare finds the region's pages, checks them and lets the device reach them.
func (e *Enclave) prepare(region *memRegion) error {
	if err := region.pin(e.process, e.cpus.node); err != nil {
		return err
	}
	if e.nrMemRegions+uint64(len(region.phys)) > e.maxMemRegions {
		return NEErrMemMaxRegions
	}
	for _, phys := range region.phys {
		if err := phys.check(); err != nil {
			return err
		}
	}
	return region.share(e.driver.dma)
}

// donate gives the device the region's physical memory.
func (e *Enclave) donate(region *memRegion) error {
	for _, phys := range region.phys {
		req := pcidev.SlotAddMemReq{SlotUID: e.slotUID, PAddr: phys.start, Size: phys.size}
		if _, err := e.driver.dev.do(req); err != nil {
			return err
		}
		region.donated += phys.size
		e.memSize += phys.size
		e.nrMemRegions++
	}
	return nil
}

// StartEnclave starts the enclave and returns its CID (NE_START_ENCLAVE). In this order: NEErrInvalidFlagValue,
// NEErrInvalidEnclaveCID, NEErrNotInInitState, NEErrNoMemRegionsAdded, NEErrEnclaveMemMinSize, NEErrNoVCPUsAdded,
// NEErrFullCoresNotUsed, and the device's errors.
func (e *Enclave) StartEnclave(info StartInfo) (cid uint64, err error) {
	if cid, err = e.startEnclave(info); err != nil {
		return 0, fmt.Errorf("start the enclave: %w", err)
	}
	return cid, nil
}

func (e *Enclave) startEnclave(info StartInfo) (uint64, error) {
	cid := info.EnclaveCID
	switch {
	case info.Flags >= enclaveStartMaxFlagVal:
		return 0, NEErrInvalidFlagValue
	case cid > 0 && cid <= cidHost, cid == cidParentVM, cid >= cidAny:
		return 0, NEErrInvalidEnclaveCID
	}
	if err := e.begin(); err != nil {
		return 0, err
	}
	defer e.infoMu.Unlock()
	if err := e.checkResources(); err != nil {
		return 0, err
	}
	reply, err := e.driver.dev.do(pcidev.EnclaveStartReq{SlotUID: e.slotUID, EnclaveCID: cid, Flags: info.Flags})
	if err != nil {
		return 0, err
	}
	e.state = pcidev.StateRunning
	return reply.EnclaveCID, nil
}

func (e *Enclave) checkResources() error {
	switch {
	case e.nrMemRegions == 0:
		return NEErrNoMemRegionsAdded
	case e.memSize < minEnclaveMemSize:
		return NEErrEnclaveMemMinSize
	case len(e.cpus.vcpus) == 0:
		return NEErrNoVCPUsAdded
	}
	if _, left := e.cpus.unused(); left {
		return NEErrFullCoresNotUsed
	}
	return nil
}

// Poll returns what poll(2) returns for the file at once: POLLHUP when the enclave has ended by itself, or can no
// longer be told of; POLLNVAL after Close; otherwise 0.
func (e *Enclave) Poll() int16 {
	e.pollMu.Lock()
	defer e.pollMu.Unlock()
	switch {
	case e.closed:
		return unix.POLLNVAL
	case e.event:
		return unix.POLLHUP
	}
	return 0
}

// Done returns a channel that is closed when there is nothing more to wait for: on hang-up, and when the last file
// of the enclave is closed. Err says which.
func (e *enclave) Done() <-chan struct{} { return e.done }

// Err returns nil until Done is closed, then why: ErrHangUp, ErrDeviceGone (wrapped), ENODEV for an unloaded
// driver, or os.ErrClosed.
func (e *enclave) Err() error {
	e.pollMu.Lock()
	defer e.pollMu.Unlock()
	return e.err
}

// end wakes who waits for the enclave's end; event makes it a hang-up.
func (e *enclave) end(err error, event bool) {
	e.pollMu.Lock()
	defer e.pollMu.Unlock()
	e.event = e.event || event
	if e.err == nil {
		e.err = err
		close(e.done)
	}
}

// checkState asks the device for a running enclave's state and hangs up when it is another. The caller holds listMu.
//
// When the device does not tell, the Linux driver takes a reply it has not got for the new state. Here the enclave
// hangs up too, but counts as running, so that its release stops it.
func (e *enclave) checkState() {
	e.infoMu.Lock()
	defer e.infoMu.Unlock()
	if e.state != pcidev.StateRunning {
		return
	}
	reply, err := e.driver.dev.do(pcidev.SlotInfoReq{SlotUID: e.slotUID})
	switch {
	case err != nil:
		e.end(err, true)
	case reply.State != e.state:
		e.state = reply.State
		e.end(ErrHangUp, true)
	}
}

// Close closes the file; the last one ends the enclave and gives its memory, zeroed, and its CPUs back. When the
// device refuses that, they stay with the enclave until the driver is closed. os.ErrClosed the second time.
func (e *Enclave) Close() error {
	e.pollMu.Lock()
	closed := e.closed
	e.closed = true
	e.pollMu.Unlock()
	if closed {
		return os.ErrClosed
	}
	e.process.mu.Lock()
	e.process.files = slices.DeleteFunc(e.process.files, func(other *Enclave) bool { return other == e })
	e.process.mu.Unlock()
	return e.drop()
}

// drop gives up one file; the last one frees the slot.
func (e *enclave) drop() error {
	e.pollMu.Lock()
	e.files--
	last := e.files == 0
	e.pollMu.Unlock()
	if !last {
		return nil
	}
	e.end(os.ErrClosed, false)
	e.driver.listMu.Lock()
	defer e.driver.listMu.Unlock()
	if err := e.free(); err != nil {
		return fmt.Errorf("close the enclave of slot %#x: %w", e.slotUID, err)
	}
	return nil
}

// free stops the enclave if it runs, frees its slot and gives its resources back. The caller holds listMu.
func (e *enclave) free() error {
	e.infoMu.Lock()
	defer e.infoMu.Unlock()
	if e.released {
		return nil
	}
	err := e.freeSlot()
	if err != nil && !errors.Is(err, ErrDeviceGone) {
		return err
	}
	return join(err, e.releaseLocked())
}

func (e *enclave) freeSlot() error {
	if e.state != pcidev.StateInit && e.state != pcidev.StateStopped {
		if _, err := e.driver.dev.do(pcidev.EnclaveStopReq{SlotUID: e.slotUID}); err != nil {
			return err
		}
	}
	_, err := e.driver.dev.do(pcidev.SlotFreeReq{SlotUID: e.slotUID})
	return err
}

// releaseResources gives memory and CPUs back without asking the device. The caller holds listMu.
func (e *enclave) releaseResources() error {
	e.infoMu.Lock()
	defer e.infoMu.Unlock()
	return e.releaseLocked()
}

// releaseLocked is releaseResources with infoMu held too.
func (e *enclave) releaseLocked() error {
	e.released = true
	e.driver.forget(e)
	var errs []error
	for _, region := range e.regions {
		errs = append(errs, region.release(e.driver.dma))
	}
	e.regions = nil
	e.cpus.release()
	return join(errs...)
}
