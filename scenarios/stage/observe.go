package stage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize/english"

	"github.com/nesim/nesim/pcidev"
	"github.com/nesim/nesim/scenarios/fault"
	"github.com/nesim/nesim/scenarios/trace"
	"github.com/nesim/nesim/sim/hypervisor"
	"github.com/nesim/nesim/sim/nedriver"
)

const nedriverOffset = nedriver.EIFLoadOffset

// observe receives what the hypervisor does.
func (s *Stage) observe(e hypervisor.Event) {
	s.mu.Lock()
	a := s.actor(e.SlotUID)
	switch e.Kind {
	case hypervisor.EnclaveStarting, hypervisor.ImageUnbootable:
		a.cid, a.exit = e.CID, nil
	case hypervisor.EnclaveExited:
		if e.Exit.Reason == hypervisor.ExitGuest {
			e.Exit.Report(a.console)
		}
		a.exit = &e.Exit
		s.change()
	}
	lane := a.name
	s.mu.Unlock()
	text := e.Kind.String()
	switch e.Kind {
	case hypervisor.EnclaveStarting, hypervisor.EnclaveRunning:
		text += fmt.Sprintf(", CID %d", e.CID)
	case hypervisor.EnclaveExited:
		text += ": " + e.Exit.String()
	case hypervisor.CommandRefused, hypervisor.ImageUnbootable:
		text += ": " + e.Err.Error()
	}
	if e.SlotUID == 0 {
		lane = "device"
	}
	s.note(lane, trace.State, text)
}

// describe writes a command in one line.
func describe(c pcidev.Command, req pcidev.Request, reply pcidev.Reply) string {
	text := c.String() + arguments(req)
	if reply.RC != 0 {
		return text + " = " + replyCode(reply.RC)
	}
	text += " = 0"
	switch c {
	case pcidev.CmdSlotAlloc:
		text += fmt.Sprintf(": slot %#x", reply.SlotUID)
	case pcidev.CmdEnclaveStart:
		text += fmt.Sprintf(": CID %d", reply.EnclaveCID)
	case pcidev.CmdSlotCount:
		text += ": " + english.Plural(int(reply.SlotCount), "slot", "")
	case pcidev.CmdSlotInfo, pcidev.CmdNextSlot, pcidev.CmdEnclaveGetSlot:
		text += fmt.Sprintf(": slot %#x, CID %d, %s of %d MiB in all, %s, flags %#x, state %s", reply.SlotUID, reply.EnclaveCID,
			english.Plural(int(reply.MemRegions), "region", ""), reply.MemSize>>20, english.Plural(int(reply.NrVCPUs), "vCPU", ""), reply.Flags, pcidev.StateName(reply.State))
	}
	return text
}

// arguments reports what a command is about.
func arguments(req pcidev.Request) string {
	switch r := req.(type) {
	case pcidev.EnclaveStartReq:
		return fmt.Sprintf(" slot %#x, CID %d, flags %#x", r.SlotUID, r.EnclaveCID, r.Flags)
	case pcidev.EnclaveGetSlotReq:
		return fmt.Sprintf(" CID %d", r.EnclaveCID)
	case pcidev.EnclaveStopReq:
		return fmt.Sprintf(" slot %#x", r.SlotUID)
	case pcidev.SlotFreeReq:
		return fmt.Sprintf(" slot %#x", r.SlotUID)
	case pcidev.SlotAddMemReq:
		return fmt.Sprintf(" slot %#x, %#x bytes at %#x", r.SlotUID, r.Size, r.PAddr)
	case pcidev.SlotAddVCPUReq:
		return fmt.Sprintf(" slot %#x, vCPU %d", r.SlotUID, r.VCPUID)
	case pcidev.SlotAddBulkVCPUsReq:
		return fmt.Sprintf(" slot %#x, %s", r.SlotUID, english.Plural(int(r.NrVCPUs), "vCPU", ""))
	case pcidev.NextSlotReq:
		return fmt.Sprintf(" after %#x", r.SlotUID)
	case pcidev.SlotInfoReq:
		return fmt.Sprintf(" slot %#x", r.SlotUID)
	}
	return ""
}

// replyCode is a reply's rc with the name of its errno.
func replyCode(rc int32) string {
	if rc < 0 {
		return "-" + nedriver.ErrorCode(-rc).String()
	}
	return strconv.Itoa(int(rc))
}

// maxConsole bounds what is kept of a console, in bytes: a scenario floods it on purpose.
const maxConsole = 4 << 20

// console returns what takes the console of an enclave.
func (s *Stage) console(spec hypervisor.VMSpec) io.Writer { return &consoleOf{s, spec.SlotUID} }

type consoleOf struct {
	stage *Stage
	slot  uint64
}

// Write implements io.Writer and never fails.
func (c *consoleOf) Write(p []byte) (int, error) {
	s := c.stage
	s.mu.Lock()
	a := s.actor(c.slot)
	if len(a.console)+len(p) <= maxConsole {
		a.console = append(a.console, p...)
	}
	s.change()
	a.line = append(a.line, p...)
	var lines []string
	for {
		line, rest, whole := bytes.Cut(a.line, []byte{'\n'})
		if !whole {
			break
		}
		lines, a.line = append(lines, strings.TrimRight(string(line), "\r")), rest
	}
	if len(a.line) > maxLine {
		a.line = nil
	}
	name := a.name
	s.mu.Unlock()
	for _, line := range lines {
		s.note(name, trace.Console, line)
	}
	return len(p), nil
}

const maxLine = 4096 // bytes of a console line in the trace

// faultyVMM refuses starts.
type faultyVMM struct {
	hypervisor.VMM
	stage *Stage
}

var errRefused = errors.New("the scenario refuses it")

func (v *faultyVMM) Start(ctx context.Context, spec hypervisor.VMSpec) (hypervisor.VM, error) {
	for _, f := range v.stage.strike(fault.Occasion{At: fault.Start, Enclave: v.stage.nameOf(spec.SlotUID)}) {
		if f.Do == fault.Refuse {
			return nil, errRefused
		}
	}
	return v.VMM.Start(ctx, spec)
}
