// Package stage is one simulated instance for one scenario, with either of two engines behind the NE PCI device.
//
// The scripted engine runs no machine: the real device model, driver, hypervisor, vsock switch and heartbeat listener
// work on a scripted enclave, all in memory, so that inside a testing/synctest bubble time is virtual. The QEMU engine
// runs real microvms behind the real vfio-user socket. Faults strike in both at the same points.
//
// Locks: Stage.mu guards names, consoles and the step; it is a leaf.
package stage

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/nesim/nesim/attest/pki"
	"github.com/nesim/nesim/pcidev"
	"github.com/nesim/nesim/scenarios/fault"
	"github.com/nesim/nesim/scenarios/scripted"
	"github.com/nesim/nesim/scenarios/trace"
	"github.com/nesim/nesim/sim/hypervisor"
	"github.com/nesim/nesim/sim/nedriver"
	"github.com/nesim/nesim/sim/parent"
	"github.com/nesim/nesim/sim/vsock"
)

// Engine says what runs enclaves.
type Engine string

// The engines.
const (
	Scripted Engine = "scripted"
	QEMU     Engine = "qemu"
)

// Config shapes a stage. Zero values take the defaults.
type Config struct {
	Engine Engine
	Seed   uint64
	Trace  *trace.Trace // what happens is added to it, with the step of Stage.Step

	Topology  nedriver.Topology    // default: 16 CPUs, 2 threads a core
	HugePages []nedriver.HugePages // default: as many as are asked for
	CPUPool   string               // default: all but the first core; "none": no pool
	Slots     int                  // default 4
	NSM       bool                 // enclaves have one
	Crowded   bool                 // other stages share the processors: machines leave them room
}

func (c *Config) setDefaults() {
	if c.Trace == nil {
		c.Trace = new(trace.Trace)
	}
	if c.Topology.CPUs == 0 {
		c.Topology.CPUs = 16
	}
	if c.Topology.ThreadsPerCore == 0 {
		c.Topology.ThreadsPerCore = 2
	}
	if c.CPUPool == "" {
		c.CPUPool = fmt.Sprintf("%d-%d", c.Topology.ThreadsPerCore, c.Topology.CPUs-1)
	}
	if c.Slots == 0 {
		c.Slots = hypervisor.DefaultSlots
	}
}

// Stage is a running instance. The parts are the real ones: steps use them directly.
type Stage struct {
	Host       *nedriver.Host
	Driver     *nedriver.Driver
	Hypervisor *hypervisor.Hypervisor
	Net        *vsock.Switch
	Heartbeats *parent.Heartbeats
	Faults     *fault.Set

	cfg     Config
	began   time.Time
	random  *rand.Rand // of slot uids
	engine  engine
	bus     bus
	devices []*faultyDevice
	raw     *rawDevice
	root    *pki.Authority
	pki     *pki.Instance
	before  resources
	held    sync.WaitGroup // connections that a fault swallowed
	gone    chan struct{}  // closed when the stage ends
	begin   sync.Once      // of turns
	turns   turns
	alone   chan struct{} // full while a branch is in a call of the driver

	mu      sync.Mutex
	step    int
	actors  map[uint64]*actor // by slot uid
	changed chan struct{}     // closed and made anew when a console or an exit is added to
	skew    time.Duration     // of the NSM's clock
}

// actor is an enclave.
type actor struct {
	name    string
	cid     uint32
	does    scripted.Behaviour
	console []byte
	line    []byte // of the console, not whole yet
	exit    *hypervisor.Exit
}

// engine is what differs.
type engine interface {
	hypervisor.VMM
	// bus attaches a device for a driver.
	bus(ctx context.Context, f *faultyDevice, hv pcidev.Hypervisor) (bus, error)
	kill(cid uint32, signal os.Signal) error
	// Memory is what a machine's VMM takes beside the enclave's RAM, in bytes.
	Memory(cid uint32) uint64
	close() error
}

// New sets a stage.
func New(ctx context.Context, cfg Config) (*Stage, error) {
	cfg.setDefaults()
	s := &Stage{cfg: cfg, began: time.Now(), actors: make(map[uint64]*actor), changed: make(chan struct{}), gone: make(chan struct{}), alone: make(chan struct{}, 1)}
	cfg.Trace.Begin()
	if err := s.set(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Stage) set(ctx context.Context) (err error) {
	s.Faults = fault.NewSet(s.cfg.Seed, s.tellFault)
	s.Net = vsock.New()
	if s.cfg.NSM {
		if s.pki, err = s.newPKI(); err != nil {
			return err
		}
	}
	switch s.cfg.Engine {
	case Scripted:
		s.engine = s.newScripted()
	case QEMU:
		if s.engine, err = s.newQEMU(ctx); err != nil {
			return err
		}
	default:
		return fmt.Errorf("no engine %q: choose scripted or qemu", s.cfg.Engine)
	}
	if s.Host, err = nedriver.NewHost(nedriver.HostConfig{Topology: s.cfg.Topology, HugePages: s.cfg.HugePages}); err != nil {
		return err
	}
	s.before = s.resources()
	s.Heartbeats = parent.New(s.Net)
	s.random = rand.New(rand.NewPCG(s.cfg.Seed, 1))
	return s.serve(ctx)
}

// serve begins to serve the device, and loads the driver.
func (s *Stage) serve(ctx context.Context) (err error) {
	s.Hypervisor = hypervisor.New(hypervisor.Config{
		VMM: &faultyVMM{s.engine, s}, Slots: s.cfg.Slots, VCPUs: uint32(s.cfg.Topology.CPUs), Observe: s.observe,
		Rand: seeded{s.random},
	})
	if s.bus, err = s.engine.bus(ctx, s.newDevice(), s.Hypervisor); err != nil {
		return err
	}
	if s.Driver, err = nedriver.Attach(s.Host, s.bus); err != nil {
		return err
	}
	if s.cfg.CPUPool == "none" {
		return nil
	}
	if err := s.Driver.SetCPUs(s.cfg.CPUPool); err != nil {
		return fmt.Errorf("set the CPU pool %s: %w", s.cfg.CPUPool, err)
	}
	return nil
}

// Restart is the end of the daemon that plays the hypervisor, and its next start: enclaves end, the driver finds its
// device gone and hangs up, and Driver and Hypervisor are new ones. Nobody may use them meanwhile.
func (s *Stage) Restart(ctx context.Context) error {
	s.note("device", trace.Note, "the daemon ends, and with it the device")
	s.bus.cut()
	err := s.Driver.Close()
	if errors.Is(err, nedriver.ErrDeviceGone) {
		err = nil
	}
	if s.raw != nil {
		err = errors.Join(err, s.raw.close())
		s.raw = nil
	}
	err = errors.Join(err, s.Hypervisor.Close())
	s.note("device", trace.Note, "the daemon starts again")
	return errors.Join(err, s.serve(ctx))
}

func (s *Stage) newDevice() *faultyDevice {
	f := &faultyDevice{stage: s}
	s.devices = append(s.devices, f)
	return f
}

// seeded makes bytes of a seed.
type seeded struct{ *rand.Rand }

func (s seeded) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(s.Uint32())
	}
	return len(p), nil
}

// Step reports which step is under way, for the trace.
func (s *Stage) Step(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.step = n
}

// Now is the time since the stage was set: virtual on the scripted engine.
func (s *Stage) Now() time.Duration { return time.Since(s.began) }

// Name gives a slot's enclave the name by which faults and the trace call it, and its behaviour, which the QEMU engine
// has no use for. It comes before the start.
func (s *Stage) Name(slotUID uint64, name string, b scripted.Behaviour) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.actor(slotUID)
	a.name, a.does = name, b
}

// actor finds or makes what is known of a slot's enclave. s.mu is held.
func (s *Stage) actor(slotUID uint64) *actor {
	a := s.actors[slotUID]
	if a == nil {
		a = &actor{name: fmt.Sprintf("slot %#x", slotUID)}
		s.actors[slotUID] = a
	}
	return a
}

func (s *Stage) nameOf(slotUID uint64) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.actor(slotUID).name
}

func (s *Stage) nameOfCID(cid uint32) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.actors {
		if a.cid == cid && a.exit == nil {
			return a.name
		}
	}
	return fmt.Sprintf("CID %d", cid)
}

// strike asks for the faults of an occasion.
func (s *Stage) strike(o fault.Occasion) []fault.Fault {
	o.Since = s.Now()
	return s.Faults.Strike(o)
}

func (s *Stage) tellFault(f fault.Fault, o fault.Occasion) {
	text := fmt.Sprintf("%s: %s at %s", f.Name, f.Do, o.At)
	if o.Command != 0 {
		text += " of " + o.Command.String()
	}
	lane := o.Enclave
	if lane == "" {
		lane = "device"
	}
	s.note(lane, trace.Fault, text)
}

func (s *Stage) note(lane string, kind trace.Kind, text string) {
	s.cfg.Trace.Add(lane, kind, s.underWay(), text)
}

// underWay is the step of Stage.Step.
func (s *Stage) underWay() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.step
}

// Exit waits for the end of an enclave's machine and reports how it ended.
func (s *Stage) Exit(ctx context.Context, slotUID uint64) (hypervisor.Exit, error) {
	var exit *hypervisor.Exit
	err := s.await(ctx, func() bool {
		exit = s.actor(slotUID).exit
		return exit != nil
	})
	if err != nil {
		return hypervisor.Exit{}, err
	}
	return *exit, nil
}

// Console waits until the console text of an enclave, in debug mode or not, is such that found returns true, and returns
// the text so far.
func (s *Stage) Console(ctx context.Context, slotUID uint64, found func(text string) bool) (text string, err error) {
	err = s.await(ctx, func() bool {
		text = string(s.actor(slotUID).console)
		return found(text)
	})
	return text, err
}

// await waits for something that changes with s.changed; done is called with s.mu held.
func (s *Stage) await(ctx context.Context, done func() bool) error {
	for {
		s.mu.Lock()
		ok, changed := done(), s.changed
		s.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// change tells those who await. s.mu is held.
func (s *Stage) change() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// VMMMemory is what an enclave's VMM takes beside the enclave's RAM, in bytes: 0 on the scripted engine, or when it has ended.
func (s *Stage) VMMMemory(slotUID uint64) uint64 {
	s.mu.Lock()
	cid := s.actor(slotUID).cid
	s.mu.Unlock()
	return s.engine.Memory(cid)
}

// Kill sends a signal to an enclave's VMM: SIGKILL, SIGSTOP or SIGCONT. The scripted engine does as if.
func (s *Stage) Kill(slotUID uint64, signal os.Signal) error {
	s.mu.Lock()
	a := s.actor(slotUID)
	cid, name := a.cid, a.name
	s.mu.Unlock()
	s.note(name, trace.Fault, "its VMM gets "+signal.String())
	return s.engine.kill(cid, signal)
}
