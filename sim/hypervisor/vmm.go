package hypervisor

import (
	"context"
	"fmt"
	"os"

	"github.com/nesim/nesim/eif"
	"github.com/nesim/nesim/sim/workload"
)

// VMM runs enclaves: QEMU microvms, or scripted ones.
type VMM interface {
	// Start boots an enclave. ctx bounds Start, not the VM's life. After an error nothing of the VM is left. The error
	// wraps ErrUnbootable if it is the image's fault.
	Start(ctx context.Context, spec VMSpec) (VM, error)
}

// VMSpec is what an enclave is made of.
type VMSpec struct {
	SlotUID      uint64
	CID          uint32
	CPUs         int
	MemoryBytes  uint64 // a multiple of 2 MiB
	Debug        bool   // NE_ENCLAVE_DEBUG_MODE
	Measurements eif.Measurements

	// Kernel and Initrd (nil if the image has no ramdisk; else all of them, one after the other) are memfds, sealed
	// against a change of size, with what was measured. They are the hypervisor's, and stay open and unchanged until
	// Loaded is called or the VM has ended.
	Kernel, Initrd *os.File
	Cmdline        string

	// Loaded reports that the VM does not read Kernel and Initrd any more, so that their memory can be given back; from
	// then on they read as zeroes. It may be called at any time and any number of times. It is never nil.
	Loaded func()
}

// VM is a started enclave.
type VM interface {
	// Wait returns how the VM ended, once nothing of it is left.
	Wait() Exit
	// Stop ends the VM, by force if it must, and returns when it has ended.
	Stop(ctx context.Context) error
}

// Exit is how an enclave ended.
type Exit struct {
	Reason ExitReason
	Code   *int   // the exit code of the guest's workload, if init reported one
	Signal int    // the signal that killed the workload, if init reported one, or 0
	Detail string // one more line for people, or empty
}

func (e Exit) String() string {
	s := e.Reason.String()
	if e.Code != nil {
		s = fmt.Sprintf("%s with code %d", s, *e.Code)
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

// Report adds how the workload ended, as init reports it on the console, if it does.
func (e *Exit) Report(console []byte) {
	r, ok := workload.Find(console)
	switch {
	case !ok:
	case r.Error != "" || r.Signal != 0:
		e.Signal, e.Detail = r.Signal, r.String()
	default:
		e.Code = &r.Code
	}
}

// ExitReason is why an enclave ended.
type ExitReason int

const (
	ExitAsked         ExitReason = iota + 1 // the parent asked for it: ENCLAVE_STOP, or its session ended
	ExitGuest                               // the guest powered itself off or rebooted, as an enclave's init does at the end
	ExitGuestPanic                          // the guest's kernel panicked
	ExitKilled                              // the VM was killed from outside
	ExitInternalError                       // the VMM could not go on
)

var exitReasons = [...]string{
	ExitAsked:         "asked",
	ExitGuest:         "guest exit",
	ExitGuestPanic:    "guest panic",
	ExitKilled:        "VM killed",
	ExitInternalError: "VM failed",
}

func (r ExitReason) String() string {
	if r < ExitAsked || int(r) >= len(exitReasons) {
		return fmt.Sprintf("exit reason %d", int(r))
	}
	return exitReasons[r]
}

// MarshalText returns String's text.
func (r ExitReason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }
