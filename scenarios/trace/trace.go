// Package trace is what a run of scenarios tells: every event that was seen, each step with how it went, and the
// results of all scenarios. The runner writes it, reports read it.
//
// A Trace is safe for concurrent use; everything else here is plain values.
package trace

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Kind says what an entry tells of.
type Kind string

// The kinds of entries.
const (
	Step      Kind = "step"      // a step of the scenario begins; Lane is its branch
	Command   Kind = "command"   // a command of the NE PCI device, with its reply
	Interrupt Kind = "interrupt" // a vector of the device was raised
	State     Kind = "state"     // a slot or its enclave changed its state
	Ioctl     Kind = "ioctl"     // a call of the NE driver, with its result
	Vsock     Kind = "vsock"     // a connection was opened, refused, ended, or carried bytes
	Heartbeat Kind = "heartbeat" // of an enclave, at the parent
	Console   Kind = "console"   // a line
	NSM       Kind = "nsm"       // a request to the Nitro Secure Module, with its answer's kind
	Fault     Kind = "fault"     // a fault took effect
	Note      Kind = "note"      // anything else
)

// Entry is one event.
type Entry struct {
	At   time.Duration `json:"at_ns"` // since the scenario's beginning, in nanoseconds; virtual time on the scripted engine
	Lane string        `json:"lane"`  // who it happened to: "device", "parent", an enclave's name, a branch
	Kind Kind          `json:"kind"`
	Text string        `json:"text"` // one line for people
	Step int           `json:"step"` // the number of the step it belongs to, counted from 1 in the order of the file; 0: none
}

// Trace gathers entries. The zero value is empty and counts time from its first use; Begin sets that.
type Trace struct {
	mu      sync.Mutex
	began   time.Time
	entries []Entry
	text    int // bytes
	full    bool
}

// Limits of a trace: a scenario of a few lines can make interrupts, lines on a console and connections without end.
const (
	MaxEntries = 100_000
	MaxText    = 64 << 20 // bytes of all entries together
)

// ErrFull is what a trace says that has more than MaxEntries entries, or MaxText bytes of text. What comes then is not kept.
var ErrFull = fmt.Errorf("its trace comes to more than %d entries or %d MiB", MaxEntries, MaxText>>20)

// Begin starts the clock.
func (t *Trace) Begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.began = time.Now()
}

// Add records an event that happens now.
func (t *Trace) Add(lane string, kind Kind, step int, text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.began.IsZero() {
		t.began = time.Now()
	}
	if t.text += len(text); t.text > MaxText || len(t.entries) == MaxEntries {
		t.full = true
		return
	}
	t.entries = append(t.entries, Entry{At: time.Since(t.began), Lane: lane, Kind: kind, Text: text, Step: step})
}

// Err returns ErrFull if the trace has not all that happened.
func (t *Trace) Err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.full {
		return ErrFull
	}
	return nil
}

// Entries returns all of them by time. What happened at one instant is ordered by lane, and within its lane as it was
// recorded: so that on a virtual clock, where much happens at one instant, the same run gives the same entries.
func (t *Trace) Entries() []Entry {
	t.mu.Lock()
	all := slices.Clone(t.entries)
	t.mu.Unlock()
	slices.SortStableFunc(all, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.Lane, b.Lane))
	})
	return all
}
