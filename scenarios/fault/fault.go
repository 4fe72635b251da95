// Package fault is what a scenario breaks: at which point, how often, and how. It holds the decisions; packages stage
// and scripted carry them out.
package fault

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nesim/nesim/pcidev"
)

// Point is where a fault strikes.
type Point string

// The points, with what counts there as one occasion.
const (
	Reply     Point = "reply"     // the device answers a command
	Event     Point = "event"     // the device raises its event vector
	Start     Point = "start"     // the hypervisor starts an enclave's machine
	Image     Point = "image"     // the hypervisor is about to read an image from donated memory
	Heartbeat Point = "heartbeat" // an enclave connects to CID 3, port 9000
	Vsock     Point = "vsock"     // any other connection is made, either way
	NSM       Point = "nsm"       // an enclave asks its NSM
)

// Action is what a fault does. Not every action suits every point.
type Action string

// The actions, by their points.
const (
	Delay   Action = "delay"   // reply, event, heartbeat, vsock (each packet): For later
	Lose    Action = "lose"    // reply, event, heartbeat (never connects)
	Errno   Action = "errno"   // reply: its rc is -Errno; the command was done
	Garbage Action = "garbage" // reply: bytes at random; heartbeat: another byte; nsm: an answer that is no CBOR
	Double  Action = "double"  // event, heartbeat (sent twice)
	Storm   Action = "storm"   // event: Times of them
	Refuse  Action = "refuse"  // start: the machine cannot be started; vsock: the connection is refused
	Corrupt Action = "corrupt" // image: a byte of it changes
	Drop    Action = "drop"    // heartbeat: the connection ends before the byte
	Reset   Action = "reset"   // vsock: after Bytes
	Half    Action = "half"    // vsock: the enclave's direction ends after Bytes
	Stall   Action = "stall"   // vsock: nothing is taken any more after Bytes
	Limit   Action = "limit"   // vsock: Rate bytes a second
	Error   Action = "error"   // nsm: the answer is the error Code
	Expire  Action = "expire"  // nsm: certificates have expired by the time that a verifier has
	Skew    Action = "skew"    // nsm: the clock is wrong by For
)

// Fault is one fault of a scenario.
type Fault struct {
	Name    string // for the trace
	At      Point
	Do      Action
	Command pcidev.Command // reply: only of this command; 0 is any
	Enclave string         // only of this enclave; empty is any
	Port    uint32         // vsock: only to this port; 0 is any

	Nth    int           // strikes at the Nth occasion alone; 0: at every one
	After  time.Duration // not before, since the scenario's beginning
	Chance float64       // with this probability; 0 is always

	For   time.Duration // delay, skew
	Errno int           // errno, a positive number
	Code  string        // error: the NSM's
	Times int           // storm
	Bytes int           // reset, half, stall
	Rate  int           // limit
}

// Occasion is one chance for a fault to strike.
type Occasion struct {
	At      Point
	Command pcidev.Command
	Enclave string
	Port    uint32
	Since   time.Duration // the scenario's beginning
}

// Set decides which faults strike. It is safe for concurrent use.
type Set struct {
	mu     sync.Mutex
	rand   *rand.Rand
	faults []Fault
	counts []int
	told   func(Fault, Occasion)
}

// NewSet makes a set. The seed decides every chance; told is called for each fault that strikes, and may be nil.
func NewSet(seed uint64, told func(Fault, Occasion)) *Set {
	return &Set{rand: rand.New(rand.NewPCG(seed, 0)), told: told}
}

// Add arms a fault: occasions count from now.
func (s *Set) Add(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults, s.counts = append(s.faults, f), append(s.counts, 0)
}

// Strike returns the faults that strike at an occasion, in the order in which they were armed.
func (s *Set) Strike(o Occasion) (struck []Fault) {
	s.mu.Lock()
	for i, f := range s.faults {
		if !f.concerns(o) {
			continue
		}
		s.counts[i]++
		if f.Nth != 0 && f.Nth != s.counts[i] {
			continue
		}
		if f.Chance != 0 && s.rand.Float64() >= f.Chance {
			continue
		}
		struck = append(struck, f)
	}
	s.mu.Unlock()
	for _, f := range struck {
		if s.told != nil {
			s.told(f, o)
		}
	}
	return struck
}

// Bytes fills p with what the seed gives.
func (s *Set) Bytes(p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range p {
		p[i] = byte(s.rand.Uint32())
	}
}

func (f *Fault) concerns(o Occasion) bool {
	return f.At == o.At && o.Since >= f.After &&
		(f.Command == 0 || f.Command == o.Command) &&
		(f.Enclave == "" || f.Enclave == o.Enclave) &&
		(f.Port == 0 || f.Port == o.Port)
}
