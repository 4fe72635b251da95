package steps

import (
	"context"
	"maps"

	"github.com/nesim/nesim/pcidev"
	"github.com/nesim/nesim/scenarios"
	"github.com/nesim/nesim/scenarios/stage"
	"github.com/nesim/nesim/sim/nedriver"
)

var pciStep = kind[PCI]("pci", "a raw command of the PCI device, bypassing the driver")

// PCI sends the device a command and compares its reply.
type PCI struct {
	Command pcidev.Command     `yaml:"command" doc:"such as SLOT_ALLOC" required:"true"`
	Slot    string             `yaml:"slot" doc:"slot_uid is that of the slot that an earlier step saved under this name"`
	Fields  map[string]uint64  `yaml:"fields" doc:"fields of the request, by the header's names"`
	RC      nedriver.ErrorCode `yaml:"rc" doc:"the expected rc: 0 (default) or an errno's name"`
	Reply   map[string]uint64  `yaml:"reply" doc:"expected fields of the reply, by the header's names"`
	Save    string             `yaml:"save" doc:"name for the slot_uid of the reply"`
	State   string             `yaml:"state" doc:"the expected state in the reply" enum:"init,running,stopped"`
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

// offset is a field that stands for paddr: it counts from the beginning of the memory that the device reaches.
const offset = "offset"

// Check implements [scenarios.Action].
func (s *PCI) Check(c *scenarios.Checker) {
	c.Uses(scenarios.Slot, s.Slot)
	if _, err := s.request(0, 0); err != nil {
		c.Fail("%v", err)
	}
	known := replyFields(&pcidev.Reply{})
	for _, name := range sorted(s.Reply) {
		if _, ok := known[name]; !ok {
			c.Fail("reply: %v", unknownField(name, sorted(known)))
		}
	}
	c.Makes(scenarios.Slot, s.Save)
}

// request makes the device's request. slotUID is that of the slot it names, and memory the physical address of memory
// that the device reaches.
func (s *PCI) request(slotUID, memory uint64) (pcidev.Request, error) {
	fields := maps.Clone(s.Fields)
	if fields == nil {
		fields = make(map[string]uint64)
	}
	if s.Slot != "" {
		fields["slot_uid"] = slotUID
	}
	if off, given := fields[offset]; given {
		delete(fields, offset)
		fields["paddr"] = memory + off
	}
	v, err := arrange(requests[s.Command], fields)
	if err != nil {
		return nil, err
	}
	switch s.Command {
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

// Do implements [Action].
func (s *PCI) Do(ctx context.Context, w *World, b Branch) (err error) {
	var slot uint64
	if s.Slot != "" {
		if slot, err = find(w, w.slots, scenarios.Slot, s.Slot); err != nil {
			return err
		}
	}
	req, err := s.request(slot, stage.RawMemory)
	if err != nil {
		return err
	}
	var reply pcidev.Reply
	w.alone(b, func() { reply, err = w.Stage.Do(ctx, req) })
	if err != nil {
		return err
	}
	if got := nedriver.ErrorCode(-reply.RC); got != s.RC {
		return mismatch("rc is %s, not %s", rcName(got), rcName(s.RC))
	}
	if s.Save != "" {
		keep(w, w.slots, s.Save, reply.SlotUID)
	}
	return s.compare(&reply)
}

// rcName is the rc of a reply with an error code: its negative.
func rcName(c nedriver.ErrorCode) string {
	if c == 0 {
		return "0"
	}
	return "-" + c.String()
}

// replyFields are the fields of a reply, by the names of struct ne_pci_dev_cmd_reply.
func replyFields(r *pcidev.Reply) map[string]uint64 {
	return map[string]uint64{
		"slot_uid": r.SlotUID, "enclave_cid": r.EnclaveCID, "slot_count": r.SlotCount, "mem_regions": r.MemRegions,
		"mem_size": r.MemSize, "nr_vcpus": r.NrVCPUs, "flags": r.Flags, "state": uint64(r.State),
	}
}

func (s *PCI) compare(r *pcidev.Reply) error {
	if state := pcidev.StateName(r.State); s.State != "" && s.State != state {
		return mismatch("the state is %s, not %s", state, s.State)
	}
	got := replyFields(r)
	for _, name := range sorted(s.Reply) {
		if got[name] != s.Reply[name] {
			return mismatch("%s is %d, not %d", name, got[name], s.Reply[name])
		}
	}
	return nil
}
