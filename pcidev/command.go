package pcidev

import (
	"encoding/binary"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

var le = binary.LittleEndian

// Command is what is written to NECommand (enum ne_pci_dev_cmd_type).
type Command uint32

// The commands, in ne_pci_dev.h's order.
const (
	CmdInvalid          Command = 0
	CmdEnclaveStart     Command = 1
	CmdEnclaveGetSlot   Command = 2
	CmdEnclaveStop      Command = 3
	CmdSlotAlloc        Command = 4
	CmdSlotFree         Command = 5
	CmdSlotAddMem       Command = 6
	CmdSlotAddVCPU      Command = 7
	CmdSlotCount        Command = 8
	CmdNextSlot         Command = 9
	CmdSlotInfo         Command = 10
	CmdSlotAddBulkVCPUs Command = 11
	CmdMax              Command = 12
)

var commandNames = [CmdMax]string{
	"INVALID_CMD", "ENCLAVE_START", "ENCLAVE_GET_SLOT", "ENCLAVE_STOP", "SLOT_ALLOC", "SLOT_FREE",
	"SLOT_ADD_MEM", "SLOT_ADD_VCPU", "SLOT_COUNT", "NEXT_SLOT", "SLOT_INFO", "SLOT_ADD_BULK_VCPUS",
}

// String returns the header's name.
func (c Command) String() string {
	if c < CmdMax {
		return commandNames[c]
	}
	return "command " + strconv.FormatUint(uint64(c), 10)
}

// Request is a command's payload, one of the ...Req types. Append appends its
// bytes for NESendData, exactly its size.
type Request interface {
	Command() Command
	Append(b []byte) []byte
}

// EnclaveStartReq is struct enclave_start_req. EnclaveCID 0 leaves the choice to
// the device; Flags: EnclaveDebugMode.
type EnclaveStartReq struct{ SlotUID, EnclaveCID, Flags uint64 }

// EnclaveGetSlotReq is struct enclave_get_slot_req.
type EnclaveGetSlotReq struct{ EnclaveCID uint64 }

// EnclaveStopReq is struct enclave_stop_req.
type EnclaveStopReq struct{ SlotUID uint64 }

// SlotAllocReq is struct slot_alloc_req: one unused byte.
type SlotAllocReq struct{}

// SlotFreeReq is struct slot_free_req.
type SlotFreeReq struct{ SlotUID uint64 }

// SlotAddMemReq is struct slot_add_mem_req; PAddr is a physical address of the
// parent, Size is in bytes.
type SlotAddMemReq struct{ SlotUID, PAddr, Size uint64 }

// SlotAddVCPUReq is struct slot_add_vcpu_req.
type SlotAddVCPUReq struct {
	SlotUID uint64
	VCPUID  uint32
}

// SlotCountReq is struct slot_count_req: one unused byte.
type SlotCountReq struct{}

// NextSlotReq is struct next_slot_req: SlotUID is the slot to go on from.
type NextSlotReq struct{ SlotUID uint64 }

// SlotInfoReq is struct slot_info_req.
type SlotInfoReq struct{ SlotUID uint64 }

// SlotAddBulkVCPUsReq is struct slot_add_bulk_vcpus_req.
type SlotAddBulkVCPUsReq struct{ SlotUID, NrVCPUs uint64 }

// The command of each request.
func (EnclaveStartReq) Command() Command     { return CmdEnclaveStart }
func (EnclaveGetSlotReq) Command() Command   { return CmdEnclaveGetSlot }
func (EnclaveStopReq) Command() Command      { return CmdEnclaveStop }
func (SlotAllocReq) Command() Command        { return CmdSlotAlloc }
func (SlotFreeReq) Command() Command         { return CmdSlotFree }
func (SlotAddMemReq) Command() Command       { return CmdSlotAddMem }
func (SlotAddVCPUReq) Command() Command      { return CmdSlotAddVCPU }
func (SlotCountReq) Command() Command        { return CmdSlotCount }
func (NextSlotReq) Command() Command         { return CmdNextSlot }
func (SlotInfoReq) Command() Command         { return CmdSlotInfo }
func (SlotAddBulkVCPUsReq) Command() Command { return CmdSlotAddBulkVCPUs }

// The bytes of each request.
func (r EnclaveStartReq) Append(b []byte) []byte {
	return append64(b, r.SlotUID, r.EnclaveCID, r.Flags)
}
func (r EnclaveGetSlotReq) Append(b []byte) []byte { return append64(b, r.EnclaveCID) }
func (r EnclaveStopReq) Append(b []byte) []byte    { return append64(b, r.SlotUID) }
func (r SlotAllocReq) Append(b []byte) []byte      { return append(b, 0) }
func (r SlotFreeReq) Append(b []byte) []byte       { return append64(b, r.SlotUID) }
func (r SlotAddMemReq) Append(b []byte) []byte     { return append64(b, r.SlotUID, r.PAddr, r.Size) }
func (r SlotAddVCPUReq) Append(b []byte) []byte    { return append64(b, r.SlotUID, uint64(r.VCPUID)) }
func (r SlotCountReq) Append(b []byte) []byte      { return append(b, 0) }
func (r NextSlotReq) Append(b []byte) []byte       { return append64(b, r.SlotUID) }
func (r SlotInfoReq) Append(b []byte) []byte       { return append64(b, r.SlotUID) }
func (r SlotAddBulkVCPUsReq) Append(b []byte) []byte {
	return append64(b, r.SlotUID, r.NrVCPUs)
}

func append64(b []byte, vs ...uint64) []byte {
	for _, v := range vs {
		b = le.AppendUint64(b, v)
	}
	return b
}

// requestSizes are the sizes of the payloads, in bytes.
var requestSizes = [CmdMax]int{
	CmdEnclaveStart:     24,
	CmdEnclaveGetSlot:   8,
	CmdEnclaveStop:      8,
	CmdSlotAlloc:        1,
	CmdSlotFree:         8,
	CmdSlotAddMem:       24,
	CmdSlotAddVCPU:      16,
	CmdSlotCount:        1,
	CmdNextSlot:         8,
	CmdSlotInfo:         8,
	CmdSlotAddBulkVCPUs: 16,
}

// maxRequest is the size of the largest payload.
const maxRequest = 24

// DecodeRequest reads the payload of command c from the front of b, which is
// NESendData or a copy of its beginning. The error wraps unix.EINVAL when there is
// no such command or b is too short for it.
func DecodeRequest(c Command, b []byte) (Request, error) {
	if c <= CmdInvalid || c >= CmdMax {
		return nil, fmt.Errorf("%v is not a command of the NE device: %w", c, unix.EINVAL)
	}
	if len(b) < requestSizes[c] {
		return nil, fmt.Errorf("payload of %v is %d bytes, not %d: %w", c, len(b), requestSizes[c], unix.EINVAL)
	}
	u64 := func(i int) uint64 { return le.Uint64(b[8*i:]) }
	switch c {
	case CmdEnclaveStart:
		return EnclaveStartReq{u64(0), u64(1), u64(2)}, nil
	case CmdEnclaveGetSlot:
		return EnclaveGetSlotReq{u64(0)}, nil
	case CmdEnclaveStop:
		return EnclaveStopReq{u64(0)}, nil
	case CmdSlotAlloc:
		return SlotAllocReq{}, nil
	case CmdSlotFree:
		return SlotFreeReq{u64(0)}, nil
	case CmdSlotAddMem:
		return SlotAddMemReq{u64(0), u64(1), u64(2)}, nil
	case CmdSlotAddVCPU:
		return SlotAddVCPUReq{u64(0), le.Uint32(b[8:])}, nil
	case CmdSlotCount:
		return SlotCountReq{}, nil
	case CmdNextSlot:
		return NextSlotReq{u64(0)}, nil
	case CmdSlotInfo:
		return SlotInfoReq{u64(0)}, nil
	}
	return SlotAddBulkVCPUsReq{u64(0), u64(1)}, nil
}

// ReplySize is the size of a Reply in NERecvData, in bytes.
const ReplySize = 72

// Reply is struct ne_pci_dev_cmd_reply. RC is 0 or a negative errno; the other
// fields are valid as the header says for each command, and 0 otherwise. In the
// reply to SLOT_ALLOC MemRegions is the number of regions a slot may have.
type Reply struct {
	RC         int32
	SlotUID    uint64
	EnclaveCID uint64
	SlotCount  uint64
	MemRegions uint64
	MemSize    uint64 // bytes
	NrVCPUs    uint64
	Flags      uint64
	State      uint16 // StateInit, StateRunning or StateStopped
}

// Append appends r's ReplySize bytes.
func (r *Reply) Append(b []byte) []byte {
	b = append64(b, uint64(uint32(r.RC)), r.SlotUID, r.EnclaveCID, r.SlotCount, r.MemRegions, r.MemSize, r.NrVCPUs, r.Flags)
	return append64(b, uint64(r.State))
}

// Decode reads r from the front of b. The error wraps unix.EINVAL if b is too short.
func (r *Reply) Decode(b []byte) error {
	if len(b) < ReplySize {
		return fmt.Errorf("reply of the NE device is %d bytes, not %d: %w", len(b), ReplySize, unix.EINVAL)
	}
	u64 := func(i int) uint64 { return le.Uint64(b[8*i:]) }
	*r = Reply{
		RC:      int32(le.Uint32(b)),
		SlotUID: u64(1), EnclaveCID: u64(2), SlotCount: u64(3), MemRegions: u64(4),
		MemSize: u64(5), NrVCPUs: u64(6), Flags: u64(7),
		State: le.Uint16(b[64:]),
	}
	return nil
}

// Err returns RC as an error that is a unix.Errno, or nil if it is not negative.
func (r *Reply) Err() error {
	if r.RC >= 0 {
		return nil
	}
	return unix.Errno(-int64(r.RC))
}
