package instance

import (
	"sync"

	"github.com/nesim/nesim/qemu"
	"github.com/nesim/nesim/sim/errcode"
	"github.com/nesim/nesim/sim/hypervisor"
)

// wantedMachine returns the machine type for an enclave: its own, or else the instance's.
func (i *Instance) wantedMachine(spec *RunSpec) (qemu.MachineType, error) {
	if spec.Machine == "" {
		return i.machine, nil
	}
	machine, err := qemu.ParseMachineType(spec.Machine)
	return machine, errcode.Wrap(errcode.InvalidArgument, err)
}

// machineType returns the machine type for an enclave that starts. Those of a primary VM cannot choose.
func (i *Instance) machineType(spec hypervisor.VMSpec) qemu.MachineType {
	if e := i.enclaveOf(spec.SlotUID); e != nil {
		return e.machine
	}
	return i.machine
}

// sayTo hands a line about an enclave that starts to whoever launches it.
func (i *Instance) sayTo(spec hypervisor.VMSpec, line string) {
	if e := i.enclaveOf(spec.SlotUID); e != nil {
		e.lines.say(line)
	}
}

// enclaveOf finds the enclave of ours in a slot, or nil: it may be a primary VM's.
func (i *Instance) enclaveOf(slotUID uint64) *enclave {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, e := range i.enclaves {
		if e.driver.SlotUID() == slotUID {
			return e
		}
	}
	return nil
}

// progress takes lines for people from any goroutine, and hands them on while somebody wants them.
type progress struct {
	mu sync.Mutex // a leaf, held while a line is handed on
	to func(string)
}

func (p *progress) say(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.to != nil {
		p.to(line)
	}
}

// hand sets who gets the lines, or nil. No line is under way to who got them before when it returns.
func (p *progress) hand(to func(string)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.to = to
}
