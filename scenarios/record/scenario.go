package record

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/pcidev"
	"github.com/nesim/nesim/sim/nedriver"
)

// In a scenario raw commands have this much of the parent's memory, from offset 0 on; an enclave takes a quarter of it.
const (
	rawMemory = 256 << 20
	share     = 64 << 20
	granule   = 2 << 20
)

// Scenario makes a scenario file of a recording: the commands as raw ones, with the recorded results expected. Its
// enclaves have as much memory as an enclave needs at least. It has at most four slots at a time.
func Scenario(name string, entries []Entry) (string, error) {
	s := scenario{slots: make(map[uint64]*place), regions: make(map[uint64]uint64)}
	for i := range entries {
		if err := entries[i].check(); err != nil {
			return "", fmt.Errorf("entry %d: %w", i+1, err)
		}
		if e := &entries[i]; e.donates() {
			s.regions[e.Request[0]]++
		}
	}
	fmt.Fprintf(&s.text, "name: %q\nengines: [scripted]\ntags: [recorded]\nsteps:\n", name)
	s.step("listen: {as: heartbeats, port: 9000} # so that enclaves wait for an answer, and go on")
	for i := range entries {
		if err := s.add(&entries[i]); err != nil {
			return "", fmt.Errorf("entry %d, %s: %w", i+1, entries[i].What, err)
		}
	}
	return s.text.String(), nil
}

type scenario struct {
	text    strings.Builder
	slots   map[uint64]*place
	regions map[uint64]uint64 // by slot uid: how many are to come
	used    [rawMemory / share]bool
	number  int
}

// donates reports whether memory became a slot's.
func (e *Entry) donates() bool {
	return e.command() == pcidev.CmdSlotAddMem && e.Reply != nil && e.Reply.RC == 0
}

// place is where a slot's memory is.
type place struct {
	name  string
	share int
	taken uint64 // bytes of it
	ended bool   // its enclave
}

func (s *scenario) step(format string, args ...any) {
	fmt.Fprintf(&s.text, "  - "+format+"\n", args...)
}

func (s *scenario) add(e *Entry) error {
	c := e.command()
	if c == pcidev.CmdInvalid {
		fmt.Fprintf(&s.text, "  # session %d: %s\n", e.Session, e.What)
		if e.What == Disabled || e.What == Reset || e.What == Detached {
			s.forget()
		}
		return nil
	}
	if e.Reply == nil {
		fmt.Fprintf(&s.text, "  # %s had no reply\n", e.What)
		return nil
	}
	s.before(c, e)
	fields, err := s.fields(c, e)
	if err != nil {
		return err
	}
	parts := append([]string{"command: " + e.What}, fields...)
	if e.Reply.RC != 0 {
		parts = append(parts, "rc: "+nedriver.ErrorCode(-e.Reply.RC).String())
	} else if state := s.state(c, e); state != "" {
		parts = append(parts, "state: "+state)
	}
	s.step("pci: {%s}", strings.Join(parts, ", "))
	return nil
}

// before writes what makes the scenario's device do as the recorded one.
func (s *scenario) before(c pcidev.Command, e *Entry) {
	if c == pcidev.CmdEnclaveStart {
		if e.Reply.RC == -int32(unix.EIO) {
			s.step("fault: {name: no machine, at: start, do: refuse, nth: 1}")
		}
		return
	}
	if p := s.slots[e.Reply.SlotUID]; p != nil && e.Reply.RC == 0 && e.Reply.State == pcidev.StateStopped && !p.ended {
		p.ended = true
		s.step("pci: {command: ENCLAVE_STOP, slot: %s} # where it was recorded it ended by itself, or was stopped", p.name)
	}
}

// forget gives every place back.
func (s *scenario) forget() {
	clear(s.slots)
	s.used = [len(s.used)]bool{}
}

// fields are a request's, with places for what is only known when it runs.
func (s *scenario) fields(c pcidev.Command, e *Entry) ([]string, error) {
	fields := func(format string, args ...any) string { return "fields: {" + fmt.Sprintf(format, args...) + "}" }
	switch c {
	case pcidev.CmdSlotAlloc:
		if e.Reply.RC != 0 {
			return nil, nil
		}
		p, err := s.place(e.Reply.SlotUID)
		if err != nil {
			return nil, err
		}
		return []string{"save: " + p.name}, nil
	case pcidev.CmdSlotCount:
		return nil, nil
	case pcidev.CmdEnclaveGetSlot:
		return []string{fields("enclave_cid: %d", e.Request[0])}, nil
	}
	uid := e.Request[0]
	p := s.slots[uid]
	slot, number := "", fmt.Sprintf("slot_uid: %d", uid)
	if p != nil {
		slot, number = "slot: "+p.name, ""
	}
	with := func(more string, args ...any) []string {
		all := strings.Trim(number+", "+fmt.Sprintf(more, args...), ", ")
		switch {
		case slot == "":
			return []string{fields("%s", all)}
		case all == "":
			return []string{slot}
		}
		return []string{slot, fields("%s", all)}
	}
	switch c {
	case pcidev.CmdSlotAddMem:
		return with("%s", s.memory(p, e)), nil
	case pcidev.CmdSlotAddVCPU:
		return with("vcpu_id: %d", uint32(e.Request[1])), nil
	case pcidev.CmdSlotAddBulkVCPUs:
		return with("nr_vcpus: %d", e.Request[1]), nil
	case pcidev.CmdEnclaveStart:
		return with("enclave_cid: %d, flags: %d", max(e.Request[1], e.Reply.EnclaveCID), e.Request[2]), nil
	case pcidev.CmdEnclaveStop:
		if p != nil && e.Reply.RC == 0 {
			p.ended = true
		}
	case pcidev.CmdSlotFree:
		if p != nil && e.Reply.RC == 0 {
			s.used[p.share] = false
			defer delete(s.slots, uid)
		}
	}
	return with(""), nil
}

// place gives a slot a name and a share of the memory.
func (s *scenario) place(uid uint64) (*place, error) {
	for i, used := range s.used {
		if !used {
			s.number++
			s.used[i] = true
			s.slots[uid] = &place{name: fmt.Sprintf("slot%d", s.number), share: i}
			return s.slots[uid], nil
		}
	}
	return nil, fmt.Errorf("more than %d slots at a time: shrink the recording first", len(s.used))
}

// memory is a region's place, made smaller where it must be, so that each region has one and an enclave what it needs.
func (s *scenario) memory(p *place, e *Entry) string {
	addr, size := e.Request[1], e.Request[2]
	if p == nil || !e.donates() {
		return fmt.Sprintf("paddr: %d, size: %d", addr, size)
	}
	s.regions[e.Request[0]]--
	left, others := share-p.taken, s.regions[e.Request[0]]*granule
	fits := uint64(granule)
	if left > others+granule {
		fits = left - others
	}
	size = min(size, fits)
	offset := uint64(p.share)*share + p.taken
	p.taken += size
	return fmt.Sprintf("offset: %d, size: %d", offset, size)
}

// state is the state that the reply tells.
func (s *scenario) state(c pcidev.Command, e *Entry) string {
	if c != pcidev.CmdSlotInfo && c != pcidev.CmdNextSlot && c != pcidev.CmdEnclaveGetSlot {
		return ""
	}
	switch e.Reply.State {
	case pcidev.StateInit, pcidev.StateRunning, pcidev.StateStopped:
		return pcidev.StateName(e.Reply.State)
	}
	return ""
}
