package pcidev

// Memory is the parent's physical memory as the driver's side mapped it for DMA.
// An access fails as a whole, with an error that wraps unix.EFAULT, if any of its
// range is not mapped for it.
type Memory interface {
	Mapped(paddr, size uint64) bool // whole range can be read and written
	ReadAt(p []byte, paddr uint64) error
	WriteAt(p []byte, paddr uint64) error
	Zero(paddr, size uint64) error // gives pages back where it can
}

// Hypervisor is what the device is a door to.
type Hypervisor interface {
	// Attach begins the session of one driver. notify raises the event vector:
	// it is called whenever an enclave changes its state without the driver having
	// asked for it, never blocks, and may be called from anywhere, also after Close.
	Attach(mem Memory, notify func()) (Session, error)
}

// Session does the commands of one driver. Calls come one at a time (notify's
// excepted). An error that wraps a unix.Errno becomes that reply; any other, EIO.
// Only EnclaveStart, EnclaveStop, SlotFree, Reset and Close may take long.
type Session interface {
	SlotAlloc() (slotUID uint64, err error)
	SlotFree(slotUID uint64) error
	SlotAddMem(slotUID, paddr, size uint64) error
	SlotAddVCPU(slotUID uint64, vcpuID uint32) error
	SlotAddBulkVCPUs(slotUID, nrVCPUs uint64) error
	SlotCount() (uint64, error)
	NextSlot(slotUID uint64) (SlotInfo, error)
	SlotInfo(slotUID uint64) (SlotInfo, error)

	// EnclaveStart starts the slot's enclave; enclaveCID 0 leaves the choice to the
	// hypervisor. It returns the CID.
	EnclaveStart(slotUID, enclaveCID, flags uint64) (cid uint64, err error)
	EnclaveGetSlot(enclaveCID uint64) (SlotInfo, error)
	EnclaveStop(slotUID uint64) error

	Reset() error // the driver disabled or reset the device: every slot is freed
	Close() error // the driver is gone: every slot's VM is ended and waited for
}

// SlotInfo is what the device reports of a slot (struct ne_pci_dev_cmd_reply).
type SlotInfo struct {
	SlotUID    uint64
	EnclaveCID uint64
	MemRegions uint64 // number of regions
	MemSize    uint64 // bytes in all
	NrVCPUs    uint64
	Flags      uint64
	State      uint16
}

// States of an enclave (enum ne_state of ne_misc_dev.h).
const (
	StateInit    uint16 = 0
	StateRunning uint16 = 2
	StateStopped uint16 = 0xffff
)

// EnclaveDebugMode is the ENCLAVE_START flag NE_ENCLAVE_DEBUG_MODE of
// <linux/nitro_enclaves.h>.
const EnclaveDebugMode uint64 = 1

// MaxMemRegions is the number of memory regions a slot may have, as the reply to
// SLOT_ALLOC says; the driver keeps to it, a Session refuses more.
const MaxMemRegions = 4096

// Observer receives what the device did, if the Session implements it too.
// Calls must be quick; they come from several goroutines.
type Observer interface {
	CommandDone(c Command, req Request, reply Reply) // req nil: unreadable
	EventRaised(count uint16)                        // the event counter's new value
}

// Interrupts are the device's MSI-X vectors. Its methods never block.
type Interrupts interface {
	Trigger(vector int)
	Pending(vector int) bool // triggered, not delivered yet
	ClearPending()
}
