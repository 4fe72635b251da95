package trace

import "time"

// Status is how a scenario or a step went.
type Status string

// The statuses.
const (
	Passed  Status = "passed"
	Failed  Status = "failed"  // something that the scenario expects was not seen
	Broken  Status = "error"   // the scenario could not be run: its stage could not be set, the engine failed
	Skipped Status = "skipped" // not meant for this engine, or left out by its tags
	NotRun  Status = "not run" // of a step: one before it failed
)

// StepResult is how one step went.
type StepResult struct {
	Number  int           `json:"number"` // in the order of the file, from 1
	Name    string        `json:"name"`   // the step in one line
	File    string        `json:"file"`
	Line    int           `json:"line"` // of the file, from 1
	Branch  string        `json:"branch,omitempty"`
	Status  Status        `json:"status"`
	Start   time.Duration `json:"start_ns"` // since the scenario's beginning
	Elapsed time.Duration `json:"elapsed_ns"`
	Error   string        `json:"error,omitempty"` // one line for people
}

// FaultResult is how often a fault of a scenario struck.
type FaultResult struct {
	Name   string `json:"name"`
	File   string `json:"file"`
	Line   int    `json:"line"`
	Struck int    `json:"struck"`
}

// Result is how one scenario went.
type Result struct {
	Name        string        `json:"name"` // with the values of its matrix, if it has one
	Description string        `json:"description,omitempty"`
	File        string        `json:"file"`
	Line        int           `json:"line"`
	Tags        []string      `json:"tags,omitempty"`
	Engine      string        `json:"engine"` // scripted or qemu
	Seed        uint64        `json:"seed"`
	Status      Status        `json:"status"`
	Error       string        `json:"error,omitempty"`      // one line: the failing step's, or why there is none
	Started     time.Time     `json:"started"`              // by the machine's clock
	Elapsed     time.Duration `json:"elapsed_ns"`           // by the machine's clock
	VMMMemory   uint64        `json:"vmm_memory,omitempty"` // bytes, the most that a VMM has taken beside its enclave's RAM; qemu only
	Steps       []StepResult  `json:"steps"`
	Faults      []FaultResult `json:"faults,omitempty"` // in the order in which they were armed
	Entries     []Entry       `json:"trace"`
}

// Idle lists the faults that never struck.
func (r *Result) Idle() (idle []FaultResult) {
	for _, f := range r.Faults {
		if f.Struck == 0 {
			idle = append(idle, f)
		}
	}
	return idle
}

// Run is the results of one call of the runner, or of several that were merged.
type Run struct {
	Version string    `json:"nesim_version"`
	Started time.Time `json:"started"`
	Shard   string    `json:"shard,omitempty"`  // i/n
	Engine  string    `json:"engine,omitempty"` // scripted or qemu
	Seed    uint64    `json:"seed,omitempty"`   // of all scenarios; 0: each its own
	Results []Result  `json:"results"`
}

// Count counts the results of a status.
func (r *Run) Count(s Status) (n int) {
	for i := range r.Results {
		if r.Results[i].Status == s {
			n++
		}
	}
	return n
}

// VMMMemory is the most that a VMM has taken beside its enclave's RAM, in bytes.
func (r *Run) VMMMemory() (most uint64) {
	for i := range r.Results {
		most = max(most, r.Results[i].VMMMemory)
	}
	return most
}

// OK reports whether nothing failed.
func (r *Run) OK() bool { return r.Count(Failed)+r.Count(Broken) == 0 }
