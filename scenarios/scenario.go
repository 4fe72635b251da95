package scenarios

import (
	"slices"
	"time"

	"github.com/nesim/nesim/scenarios/fault"
	"github.com/nesim/nesim/sim/nedriver"
)

// Place is a position in a file. Lines and columns count from 1.
type Place struct {
	File         string
	Line, Column int
}

// Scenario is one scenario of a file. The yaml tags are its keys; the doc tags describe them, in the schema and the
// manual too.
type Scenario struct {
	Name        string              `yaml:"name" doc:"what the scenario shows, in a few words" required:"true"`
	Description string              `yaml:"description" doc:"a longer description"`
	Tags        []string            `yaml:"tags" doc:"words to select scenarios by"`
	Engines     []string            `yaml:"engines" doc:"the engines it runs on (default: both)" enum:"scripted,qemu"`
	Seed        uint64              `yaml:"seed" doc:"random seed (default 1); the command line's takes precedence"`
	Timeout     time.Duration       `yaml:"timeout" doc:"time limit of the scenario (default 10m)"`
	Vars        map[string]string   `yaml:"vars" doc:"values for ${name} in all strings"`
	Matrix      map[string][]string `yaml:"matrix" doc:"run the scenario once for each combination of these values for ${name}"`
	Instance    Instance            `yaml:"instance" doc:"the instance it runs on"`
	Faults      []Fault             `yaml:"faults" doc:"faults that are armed from the start"`
	Strict      bool                `yaml:"strict" doc:"fail if a fault never strikes"`
	Leftovers   bool                `yaml:"leftovers" doc:"expect resources to be left over at the end, because of a fault"`
	Steps       []Step              `yaml:"steps" doc:"what happens, in order" required:"true"`

	Place `yaml:"-"`
}

// Instance shapes the simulated instance.
type Instance struct {
	CPUs           int    `yaml:"cpus" max:"4096" doc:"CPUs of the parent (default 16)"`
	ThreadsPerCore int    `yaml:"threads_per_core" max:"64" doc:"threads per core (default 2)"`
	NUMANodes      int    `yaml:"numa_nodes" max:"64" doc:"NUMA nodes (default 1)"`
	Pool           string `yaml:"ne_cpus" doc:"CPU list of the enclave CPU pool (default: all but the first core; none: no pool)"`
	Slots          int    `yaml:"slots" max:"4096" doc:"maximum number of enclaves (default 4)"`
	HugePages      uint64 `yaml:"huge_pages" doc:"2 MiB huge pages on node 0 (default: unlimited)"`
	NSM            bool   `yaml:"nsm" doc:"give enclaves a Nitro Secure Module"`
}

// Fault is a fault and its place in the file.
type Fault struct {
	fault.Fault
	Place `yaml:"-"`
}

// Step is one step: its action, and what all steps may have.
type Step struct {
	Name        string             `yaml:"name" doc:"the step's text in reports"`
	Timeout     time.Duration      `yaml:"timeout" doc:"time limit of the step (default 4m)"`
	ExpectError nedriver.ErrorCode `yaml:"expect_error" doc:"the errno or NE_ERR_* code that the step must fail with"`
	Include     string             `yaml:"include" doc:"insert the steps of this file"`

	Kind   *StepKind `yaml:"-"`
	Action Action    `yaml:"-"` // of that kind

	Place `yaml:"-"`
}

// Size is a number of bytes: 4096, 64K, 2M, 1G.
type Size uint64

// engines are what a scenario can run on.
var engines = []string{"scripted", "qemu"}

// On reports whether the scenario can run on an engine.
func (s *Scenario) On(engine string) bool {
	if len(s.Engines) == 0 {
		return slices.Contains(engines, engine)
	}
	return slices.Contains(s.Engines, engine)
}
