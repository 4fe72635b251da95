// Package simtest gives a Go test a simulated parent instance of its own, on which it starts enclaves, expects things
// of them, and breaks them.
//
//	func TestMyParentSurvivesACrash(t *testing.T) {
//		simtest.Test(t, func(i *simtest.Instance) {
//			e := i.Run(simtest.Spec{})
//			e.Call("panic")
//			e.ExpectExit(hypervisor.ExitGuestPanic)
//		})
//	}
//
// With Test enclaves are scripted and time is virtual: an hour takes no time, and nothing may wait for what is outside.
// New is for the machine's own clock, with enclaves that are scripted or, by On(stage.QEMU), real microvms.
//
// What a test is not told as an error fails it, with the trace of all that happened. An instance ends with its test:
// enclaves, processes and memory too, and what is left over fails the test. Instances know nothing of each other, so
// that tests may run in parallel. An Instance's methods are for one goroutine, unless they say otherwise.
package simtest

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nesim/nesim/scenarios/fault"
	"github.com/nesim/nesim/scenarios/scripted"
	"github.com/nesim/nesim/scenarios/stage"
	"github.com/nesim/nesim/scenarios/trace"
	"github.com/nesim/nesim/sim/nedriver"
	"github.com/nesim/nesim/sim/parent"
	"github.com/nesim/nesim/sim/vsock"
)

// Patience is how long an expectation waits, on the instance's clock.
const Patience = 2 * time.Minute

// Instance is a parent instance with one process.
type Instance struct {
	*stage.Stage // for what has no method here
	Process      *nedriver.Process

	t     testing.TB
	trace *trace.Trace
	named int
}

// Option shapes an instance.
type Option func(*stage.Config)

// On chooses the engine.
func On(e stage.Engine) Option { return func(c *stage.Config) { c.Engine = e } }

// Seed decides all that is left to chance; the default is 0.
func Seed(n uint64) Option { return func(c *stage.Config) { c.Seed = n } }

// WithNSM gives enclaves a Nitro Secure Module; Instance.Root is the root of its certificates.
func WithNSM() Option { return func(c *stage.Config) { c.NSM = true } }

// CPUs shapes the parent's CPUs, and the pool of those for enclaves: a CPU list; empty is all but the first core.
func CPUs(t nedriver.Topology, pool string) Option {
	return func(c *stage.Config) { c.Topology, c.CPUPool = t, pool }
}

// HugePages limits the parent's memory for enclaves.
func HugePages(pools ...nedriver.HugePages) Option {
	return func(c *stage.Config) { c.HugePages = pools }
}

// Slots is how many enclaves there can be at a time; the default is 4.
func Slots(n int) Option { return func(c *stage.Config) { c.Slots = n } }

// Test runs f with a scripted instance on a virtual clock, in a bubble of testing/synctest. A nil t is for examples.
func Test(t *testing.T, f func(*Instance), options ...Option) {
	if t == nil {
		t = new(testing.T)
	} else {
		t.Helper()
	}
	synctest.Test(t, func(t *testing.T) { f(New(t, options...)) })
}

// New sets an instance that ends with the test.
func New(t testing.TB, options ...Option) *Instance {
	t.Helper()
	c := stage.Config{Engine: stage.Scripted, Trace: new(trace.Trace)}
	for _, o := range options {
		o(&c)
	}
	s, err := stage.New(context.Background(), c)
	if err != nil {
		t.Fatalf("set an instance: %v", err)
	}
	i := &Instance{Stage: s, Process: s.Host.NewProcess(), t: t, trace: c.Trace}
	t.Cleanup(i.end)
	return i
}

func (i *Instance) end() {
	if err := i.Process.Exit(); err != nil {
		i.t.Errorf("end the parent's process: %v", err)
	}
	if err := i.Leftovers(); err != nil {
		i.t.Error(err)
	}
	if err := i.Close(); err != nil {
		i.t.Error(err)
	}
	if i.t.Failed() {
		i.t.Logf("what happened:\n%s", i.Trace())
	}
}

// Trace is what has happened so far, a line an event.
func (i *Instance) Trace() string {
	var b strings.Builder
	for _, e := range i.trace.Entries() {
		fmt.Fprintf(&b, "%12v %-10s %-9s %s\n", e.At, e.Lane, e.Kind, e.Text)
	}
	return b.String()
}

// Break arms a fault.
func (i *Instance) Break(f fault.Fault) {
	if f.Name == "" {
		f.Name = "fault"
	}
	i.Faults.Add(f)
}

// Listen listens on a port of the parent, for enclaves that connect to it.
func (i *Instance) Listen(port uint32) net.Listener {
	i.t.Helper()
	l, err := i.Net.Listen(vsock.Addr{ContextID: vsock.CIDParent, Port: port})
	if err != nil {
		i.t.Fatalf("listen on port %d: %v", port, err)
	}
	i.t.Cleanup(func() { l.Close() })
	return l
}

// Spec is an enclave to be run. The zero value is the hello enclave with two CPUs and 128 MiB of memory.
type Spec struct {
	Name      string             // for the trace and for faults
	EIF       string             // path of another image than the hello enclave's
	CPUs      int                // default 2
	MemoryMiB uint64             // default 128
	CID       uint64             // 0: the hypervisor chooses
	Debug     bool               // with a console that the parent can read
	Behaviour scripted.Behaviour // of a scripted enclave
}

// Run runs an enclave as nitro-cli does, and fails the test where that fails.
func (i *Instance) Run(spec Spec) *Enclave {
	i.t.Helper()
	e, err := i.TryRun(spec)
	if err != nil {
		i.t.Fatal(err)
	}
	return e
}

// TryRun is Run for those that expect an error. Nothing of the enclave is left after one.
func (i *Instance) TryRun(spec Spec) (*Enclave, error) {
	if i.named++; spec.Name == "" {
		spec.Name = fmt.Sprintf("enclave %d", i.named)
	}
	file, err := i.Driver.Open(i.Process).CreateVM()
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", spec.Name, err)
	}
	e := &Enclave{Enclave: file, Name: spec.Name, i: i}
	i.Name(file.SlotUID(), spec.Name, spec.Behaviour)
	if err := e.launch(spec); err != nil {
		e.abandon()
		return nil, fmt.Errorf("run %s: %w", spec.Name, err)
	}
	return e, nil
}

const mib = 1 << 20

func (e *Enclave) launch(spec Spec) error {
	size := cmp.Or(spec.MemoryMiB, 128) * mib
	image, err := e.i.image(spec.EIF)
	if err != nil {
		return err
	}
	if e.memory, err = e.i.Process.Mmap(nedriver.MapSpec{Size: size}); err != nil {
		return err
	}
	if _, err := io.Copy(io.NewOffsetWriter(e.memory, nedriver.EIFLoadOffset), image); err != nil {
		return err
	}
	if err := e.SetUserMemoryRegion(nedriver.UserMemoryRegion{MemorySize: e.memory.Size(), UserspaceAddr: e.memory.Addr()}); err != nil {
		return err
	}
	for range cmp.Or(spec.CPUs, 2) {
		if _, err := e.AddVCPU(0); err != nil {
			return err
		}
	}
	heartbeat, err := e.i.Heartbeats.Expect()
	if err != nil {
		return err
	}
	defer heartbeat.Close()
	start := nedriver.StartInfo{EnclaveCID: spec.CID}
	if spec.Debug {
		start.Flags = nedriver.NEEnclaveDebugMode
	}
	cid, err := e.StartEnclave(start)
	if err != nil {
		return err
	}
	e.cid = uint32(cid)
	return heartbeat.Wait(context.Background(), e.cid, parent.Timeout(uint64(image.Size()), size), e.Done())
}

// image opens the image at a path, or the hello enclave's.
func (i *Instance) image(path string) (*io.SectionReader, error) {
	if path == "" {
		f, n, err := i.Hello(context.Background())
		if err != nil {
			return nil, err
		}
		return io.NewSectionReader(f, 0, n), nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	i.t.Cleanup(func() { f.Close() })
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return io.NewSectionReader(f, 0, info.Size()), nil
}
