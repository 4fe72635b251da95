// Package fault is what a scenario breaks: at which point, how often, and how. It decides which faults strike; packages
// stage and scripted carry them out.
package fault

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/nesim/nesim/pcidev"
	"github.com/nesim/nesim/sim/nedriver"
)

// Fault is one fault of a scenario. The yaml tags are its keys in files.
type Fault struct {
	Name    string             `yaml:"name" doc:"name in the trace"`
	At      Point              `yaml:"at" doc:"where it strikes" required:"true" enum:"reply,event,start,image,heartbeat,vsock,nsm"`
	Do      Action             `yaml:"do" doc:"what it does" required:"true" enum:"delay,lose,errno,garbage,double,storm,refuse,corrupt,drop,reset,half,stall,limit,error,expire,skew"`
	Command pcidev.Command     `yaml:"command" doc:"reply: only for this command, such as SLOT_ADD_MEM"`
	Enclave string             `yaml:"enclave" doc:"only for this enclave"`
	Port    uint32             `yaml:"port" doc:"vsock: only for this port"`
	Nth     int                `yaml:"nth" doc:"only at this occasion, counted from 1 (default: at every one)"`
	After   time.Duration      `yaml:"after" doc:"not before this time since the start of the scenario"`
	Chance  float64            `yaml:"chance" doc:"probability, 0 to 1 (default: always)"`
	For     time.Duration      `yaml:"for" doc:"delay, skew: how long"`
	Errno   nedriver.ErrorCode `yaml:"errno" doc:"errno: such as ENOSPC"`
	Code    string             `yaml:"code" doc:"error: an NSM error code such as InternalError"`
	Times   int                `yaml:"times" max:"10000" doc:"storm: how many"`
	Bytes   int                `yaml:"bytes" doc:"reset, half, stall: after this many bytes; corrupt: offset in the image, in bytes"`
	Rate    int                `yaml:"rate" doc:"limit: bytes per second"`

	index int // in its Set
}

// Title is the fault's name, or what it does.
func (f *Fault) Title() string {
	if f.Name != "" {
		return f.Name
	}
	return fmt.Sprintf("%s %s", f.Do, f.At)
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
	tally  []Tally
	told   func(Fault, Occasion)
}

// NewSet makes a set. The seed decides every chance; told is called for each fault that strikes, and may be nil.
func NewSet(seed uint64, told func(Fault, Occasion)) *Set {
	return &Set{rand: rand.New(rand.NewPCG(seed, 0)), told: told}
}

// Add arms a fault: occasions count from now.
func (s *Set) Add(f Fault) { s.AddBy(f, 0) }

// AddBy is Add by a step, of which Tally tells.
func (s *Set) AddBy(f Fault, step int) {
	f.Name = f.Title()
	s.mu.Lock()
	defer s.mu.Unlock()
	f.index = len(s.faults)
	s.faults, s.counts, s.tally = append(s.faults, f), append(s.counts, 0), append(s.tally, Tally{Fault: f, Step: step})
}

// Tally is how often a fault has struck.
type Tally struct {
	Fault  Fault
	Step   int // that armed it; 0: the scenario, from the beginning on
	Struck int
}

// Tally returns how often each fault has struck, in the order in which they were armed.
func (s *Set) Tally() []Tally {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.tally)
}

// Took counts a fault that strikes after so many bytes, once they have passed. Strike has counted every other.
func (s *Set) Took(f Fault) {
	if !f.later() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tally[f.index].Struck++
}

// later reports whether a fault strikes some time after its occasion, or never.
func (f *Fault) later() bool {
	return f.Bytes > 0 && (f.Do == Reset || f.Do == Half || f.Do == Stall)
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
		if !f.later() {
			s.tally[i].Struck++
		}
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
