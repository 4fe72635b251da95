package qemu

import "fmt"

// ExitReason is why a machine ended.
type ExitReason int

const (
	// Stopped: [Machine.Stop] or [Machine.Kill] asked for it.
	Stopped ExitReason = iota + 1
	// GuestShutdown: the guest powered itself off, or halted for good.
	GuestShutdown
	// GuestReset: the guest rebooted; a microvm does not come back from that.
	GuestReset
	// GuestPanic: the guest's kernel panicked.
	GuestPanic
	// Killed: a signal ended QEMU.
	Killed
	// InternalError: QEMU or its accelerator could not go on.
	InternalError
)

var reasonNames = map[ExitReason]string{
	Stopped:       "stopped",
	GuestShutdown: "guest shut down",
	GuestReset:    "guest rebooted",
	GuestPanic:    "guest kernel panicked",
	Killed:        "QEMU was killed",
	InternalError: "QEMU failed",
}

func (r ExitReason) String() string {
	if name, ok := reasonNames[r]; ok {
		return name
	}
	return fmt.Sprintf("ExitReason(%d)", int(r))
}

// Exit is how a machine ended: the first cause, and what is known of it in one line (may be empty).
type Exit struct {
	Reason ExitReason
	Detail string
}

func (e Exit) String() string {
	if e.Detail == "" {
		return e.Reason.String()
	}
	return e.Reason.String() + ": " + e.Detail
}

// byGuest reports whether it was the guest that ended.
func (e Exit) byGuest() bool {
	return e.Reason == GuestShutdown || e.Reason == GuestReset || e.Reason == GuestPanic
}
