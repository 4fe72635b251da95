package scenarios

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/nesim/nesim/pcidev"
	"github.com/nesim/nesim/sim/nedriver"
)

// part is a field of a structure: its name, and its size in bytes.
type part struct {
	name string
	size int
}

// ioctls are the NE driver's, with the fields of their structures. Source: include/uapi/linux/nitro_enclaves.h.
var ioctls = map[string]struct {
	number uint32
	parts  []part
}{
	"NE_CREATE_VM":              {nedriver.NECreateVM, []part{{"slot_uid", 8}}},
	"NE_ADD_VCPU":               {nedriver.NEAddVCPU, []part{{"vcpu_id", 4}}},
	"NE_GET_IMAGE_LOAD_INFO":    {nedriver.NEGetImageLoadInfo, []part{{"flags", 8}, {"memory_offset", 8}}},
	"NE_SET_USER_MEMORY_REGION": {nedriver.NESetUserMemoryRegion, []part{{"flags", 8}, {"memory_size", 8}, {"userspace_addr", 8}}},
	"NE_START_ENCLAVE":          {nedriver.NEStartEnclave, []part{{"enclave_cid", 8}, {"flags", 8}}},
}

// Encode returns an ioctl's number, and its structure in little-endian order.
func (i *Ioctl) Encode() (number uint32, data []byte, err error) {
	command, known := ioctls[i.Number]
	if !known {
		n, err := strconv.ParseUint(i.Number, 0, 32)
		if err != nil {
			names := slices.Sorted(maps.Keys(ioctls))
			return 0, nil, fmt.Errorf("the driver has no ioctl %q%s: choose %s, or a number", i.Number, meant(i.Number, names), strings.Join(names, ", "))
		}
		command.number = uint32(n)
	}
	values, err := pick(command.parts, i.Fields)
	if err != nil {
		return 0, nil, err
	}
	for n, part := range command.parts {
		data = append(data, binary.LittleEndian.AppendUint64(nil, values[n])[:part.size]...)
	}
	return command.number, data, nil
}

// pick orders values as the structure has them. What is not set is 0.
func pick(parts []part, fields map[string]uint64) ([]uint64, error) {
	values, names := make([]uint64, len(parts)), make([]string, len(parts))
	for i, part := range parts {
		names[i] = part.name
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		value := fields[name]
		n := slices.Index(names, name)
		if n < 0 {
			return nil, fmt.Errorf("no field %q here%s: %s", name, meant(name, names), listed(names))
		}
		if parts[n].size == 4 && value > math.MaxUint32 {
			return nil, fmt.Errorf("field %s has 32 bits: %d is too large", name, value)
		}
		values[n] = value
	}
	return values, nil
}

// requests are the device's, with the fields of their structures. Source: ne_pci_dev.h.
var requests = map[pcidev.Command][]part{
	pcidev.CmdEnclaveStart:     {{"slot_uid", 8}, {"enclave_cid", 8}, {"flags", 8}},
	pcidev.CmdEnclaveGetSlot:   {{"enclave_cid", 8}},
	pcidev.CmdEnclaveStop:      {{"slot_uid", 8}},
	pcidev.CmdSlotAlloc:        {},
	pcidev.CmdSlotFree:         {{"slot_uid", 8}},
	pcidev.CmdSlotAddMem:       {{"slot_uid", 8}, {"paddr", 8}, {"size", 8}},
	pcidev.CmdSlotAddVCPU:      {{"slot_uid", 8}, {"vcpu_id", 4}},
	pcidev.CmdSlotCount:        {},
	pcidev.CmdNextSlot:         {{"slot_uid", 8}},
	pcidev.CmdSlotInfo:         {{"slot_uid", 8}},
	pcidev.CmdSlotAddBulkVCPUs: {{"slot_uid", 8}, {"nr_vcpus", 8}},
}

func listed(names []string) string {
	if len(names) == 0 {
		return "the command has none"
	}
	return "the fields are " + strings.Join(names, ", ")
}

// offset is a field of memory that the device reaches, in place of paddr, wherever that is.
const offset = "offset"

// Request makes the device's request. slotUID is that of the slot it names, and memory the physical address of memory
// that the device reaches.
func (c *PCI) Request(slotUID, memory uint64) (pcidev.Request, error) {
	command, err := ParseCommand(c.Command)
	if err != nil {
		return nil, err
	}
	fields := make(map[string]uint64)
	maps.Copy(fields, c.Fields)
	if c.Slot != "" {
		fields["slot_uid"] = slotUID
	}
	if off, given := fields[offset]; given {
		delete(fields, offset)
		fields["paddr"] = memory + off
	}
	v, err := pick(requests[command], fields)
	if err != nil {
		return nil, err
	}
	switch command {
	case pcidev.CmdEnclaveStart:
		return pcidev.EnclaveStartReq{SlotUID: v[0], EnclaveCID: v[1], Flags: v[2]}, nil
	case pcidev.CmdEnclaveGetSlot:
		return pcidev.EnclaveGetSlotReq{EnclaveCID: v[0]}, nil
	case pcidev.CmdEnclaveStop:
		return pcidev.EnclaveStopReq{SlotUID: v[0]}, nil
	case pcidev.CmdSlotAlloc:
		return pcidev.SlotAllocReq{}, nil
	case pcidev.CmdSlotFree:
		return pcidev.SlotFreeReq{SlotUID: v[0]}, nil
	case pcidev.CmdSlotAddMem:
		return pcidev.SlotAddMemReq{SlotUID: v[0], PAddr: v[1], Size: v[2]}, nil
	case pcidev.CmdSlotAddVCPU:
		return pcidev.SlotAddVCPUReq{SlotUID: v[0], VCPUID: uint32(v[1])}, nil
	case pcidev.CmdSlotCount:
		return pcidev.SlotCountReq{}, nil
	case pcidev.CmdNextSlot:
		return pcidev.NextSlotReq{SlotUID: v[0]}, nil
	case pcidev.CmdSlotInfo:
		return pcidev.SlotInfoReq{SlotUID: v[0]}, nil
	default:
		return pcidev.SlotAddBulkVCPUsReq{SlotUID: v[0], NrVCPUs: v[1]}, nil
	}
}
