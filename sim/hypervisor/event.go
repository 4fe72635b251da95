package hypervisor

import (
	"fmt"
	"time"

	"github.com/nesim/nesim/eif"
	"golang.org/x/sys/unix"
)

// EventKind says what happened.
type EventKind int

const (
	SlotAllocated   EventKind = iota + 1
	SlotFreed                 // also by a reset, or when the driver has gone
	CommandRefused            // Err says why; SlotUID is 0 for SLOT_ALLOC
	EnclaveStarting           // the image is good: CID and Measurements are known
	ImageUnbootable           // Err says why; the enclave starts all the same, and does nothing
	EnclaveRunning            // the VM has started
	EnclaveExited             // Exit says how
)

var eventKinds = [...]string{
	SlotAllocated:   "slot allocated",
	SlotFreed:       "slot freed",
	CommandRefused:  "command refused",
	EnclaveStarting: "enclave starting",
	ImageUnbootable: "enclave cannot boot",
	EnclaveRunning:  "enclave running",
	EnclaveExited:   "enclave exited",
}

func (k EventKind) String() string {
	if k < SlotAllocated || int(k) >= len(eventKinds) {
		return fmt.Sprintf("event %d", int(k))
	}
	return eventKinds[k]
}

// Event is one thing that happened to a slot. Fields that its kind does not name are zero. Events of one slot come
// in their order.
type Event struct {
	Kind         EventKind
	Time         time.Time
	SlotUID      uint64
	CID          uint32           // EnclaveStarting, ImageUnbootable, EnclaveRunning, EnclaveExited
	Measurements eif.Measurements // EnclaveStarting
	Exit         Exit             // EnclaveExited
	Err          error            // CommandRefused, ImageUnbootable
}

func (h *Hypervisor) observe(e Event) {
	if h.cfg.Observe != nil {
		e.Time = time.Now()
		h.cfg.Observe(e)
	}
}

// refusal is an error with a text for people and an errno for the driver.
type refusal struct {
	errno unix.Errno
	text  string
	cause error
}

func (r *refusal) Error() string {
	if r.cause != nil {
		return r.text + ": " + r.cause.Error()
	}
	return r.text
}

func (r *refusal) Unwrap() []error {
	if r.cause != nil {
		return []error{r.errno, r.cause} // the first errno found is the reply
	}
	return []error{r.errno}
}

func refuse(errno unix.Errno, format string, args ...any) error {
	return &refusal{errno: errno, text: fmt.Sprintf(format, args...)}
}
