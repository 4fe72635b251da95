package run

import (
	"context"
	"fmt"
	"strings"

	"github.com/nesim/nesim/pcidev"
	"github.com/nesim/nesim/scenarios"
	"github.com/nesim/nesim/scenarios/stage"
	"github.com/nesim/nesim/sim/nedriver"
)

// nowhere is an address that no process has anything at.
const nowhere = 0x1000

// ioctl does one as a program does it, by an address in its memory.
func (p *player) ioctl(b branch, i *scenarios.Ioctl) error {
	process := p.process(i.Process)
	var e *enclave
	if i.Enclave != "" {
		var err error
		if e, err = p.enclave(i.Enclave); err != nil {
			return err
		}
		process = e.process
	}
	number, data, err := i.Encode()
	if err != nil {
		return err
	}
	arg, unmap := uint64(nowhere), func() {}
	if !i.BadAddr {
		if arg, unmap, err = argument(process, data); err != nil {
			return err
		}
	}
	defer unmap()
	lane := "parent"
	if e != nil {
		lane = e.name
	}
	return p.call(b, lane, i.Number, func() (string, error) {
		if e != nil {
			return "", e.file.Ioctl(number, arg)
		}
		made, err := p.stage.Driver.Open(process.Process).Ioctl(number, arg)
		if err == nil {
			err = made.Close()
		}
		return "", err
	})
}

// argument lays the structure of an ioctl into memory of the process's.
func argument(process *process, data []byte) (addr uint64, unmap func(), err error) {
	memory, err := process.Mmap(nedriver.MapSpec{Size: nedriver.PageSize4K, PageSize: nedriver.PageSize4K})
	if err != nil {
		return 0, nil, err
	}
	if _, err := memory.WriteAt(data, 0); err != nil {
		return 0, nil, err
	}
	return memory.Addr(), func() { memory.Close() }, nil
}

// pci sends a command past the driver, and holds its reply against the file.
func (p *player) pci(ctx context.Context, b branch, c *scenarios.PCI) (err error) {
	var slot uint64
	if c.Slot != "" {
		if slot, err = find(p, p.slots, "a slot", c.Slot); err != nil {
			return err
		}
	}
	req, err := c.Request(slot, stage.RawMemory)
	if err != nil {
		return err
	}
	want := 0
	if c.RC != "" {
		if want, err = scenarios.ParseErrno(c.RC); err != nil {
			return err
		}
	}
	var reply pcidev.Reply
	p.alone(b, func() { reply, err = p.stage.Do(ctx, req) })
	if err != nil {
		return err
	}
	if got := -int(reply.RC); got != want {
		return unlike("rc is -%s, not -%s", scenarios.ErrnoName(got), scenarios.ErrnoName(want))
	}
	if c.Save != "" {
		keep(p, p.slots, c.Save, reply.SlotUID)
	}
	if c.State != "" && c.State != stateName(reply.State) {
		return unlike("the state is %s, not %s", stateName(reply.State), c.State)
	}
	return compareReply(&reply, c.Reply)
}

func compareReply(r *pcidev.Reply, want map[string]uint64) error {
	got := map[string]uint64{
		"slot_uid": r.SlotUID, "enclave_cid": r.EnclaveCID, "slot_count": r.SlotCount, "mem_regions": r.MemRegions,
		"mem_size": r.MemSize, "nr_vcpus": r.NrVCPUs, "flags": r.Flags, "state": uint64(r.State),
	}
	for _, name := range sorted(want) {
		value, known := got[name]
		switch {
		case !known:
			return fmt.Errorf("no field %q in a reply: the fields are %s", name, strings.Join(sorted(got), ", "))
		case value != want[name]:
			return unlike("%s is %d, not %d", name, value, want[name])
		}
	}
	return nil
}

func stateName(state uint16) string {
	switch state {
	case pcidev.StateInit:
		return "init"
	case pcidev.StateRunning:
		return "running"
	case pcidev.StateStopped:
		return "stopped"
	}
	return fmt.Sprintf("%#x", state)
}
