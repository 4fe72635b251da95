// Package vmm runs an enclave's virtual machine for the hypervisor: a QEMU microvm, its virtio-vsock device joined to
// the vsock switch, and its console.
//
// Ownership: a vm owns its QEMU process, its devices' sockets and their folder, its place on the switch and its
// console. One goroutine, run, takes all of it down again when QEMU ends, and then lets Wait return; nothing of the
// machine is left by that time but what followers of its console still read, for a bounded while.
package vmm

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"github.com/nesim/nesim/qemu"
	"github.com/nesim/nesim/qemu/nsmdev"
	"github.com/nesim/nesim/sim/hypervisor"
	"github.com/nesim/nesim/sim/vsock"
)

// Config says what the machines are made of.
type Config struct {
	Binary  string     // QEMU's
	Sandbox string     // see qemu.Config
	Accel   qemu.Accel // the accelerator, or auto
	// ProbeKernel is the path of a good kernel, by which is found out whether KVM works; see qemu.Config.
	ProbeKernel string
	// Machine returns the machine type that is demanded for a machine, or auto; nil means auto.
	Machine func(hypervisor.VMSpec) qemu.MachineType
	Dir     string // a private folder for the machines' sockets
	Switch  Switch
	// SingleThread is for several machines at once on a host with few processors: see qemu.Config.
	SingleThread bool
	HostVsock    bool // the host kernel's vhost-vsock in place of the device in user space
	// NSM makes the Nitro Secure Module of a machine, or gives nil for a machine that has none.
	NSM func(hypervisor.VMSpec) (nsmdev.Handler, error)
	// Say is given a line for people when a machine's start takes time or another way; it may be nil. The log has the line too.
	Say func(spec hypervisor.VMSpec, line string)
	// Console returns what else a machine's console is written to, or nil. It must not block.
	Console func(hypervisor.VMSpec) io.Writer
	Log     *slog.Logger
}

// Switch is the part of a vsock switch that machines need.
type Switch interface {
	Listen(addr vsock.Addr) (net.Listener, error)
	Attach(cid uint32, e vsock.Endpoint) error
	Detach(cid uint32)
	Connect(ctx context.Context, c vsock.Conn) error
}

// VMM starts enclaves' machines. It implements hypervisor.VMM.
type VMM struct {
	cfg  Config
	host *hostHeartbeats // where the host kernel's vsock is used

	mu     sync.Mutex // a leaf
	recent []*vm      // the newest machines, ended ones too, oldest first
}

// remembered is how many machines' last words are kept.
const remembered = 64

// New returns a VMM; Close gives back what it holds. It fails where the host kernel's vsock is asked for in vain.
func New(cfg Config) (*VMM, error) {
	v := &VMM{cfg: cfg}
	if cfg.HostVsock {
		host, err := listenHost(v)
		if err != nil {
			return nil, err
		}
		v.host = host
	}
	return v, nil
}

// Close ends what New began. The machines must have ended.
func (v *VMM) Close() {
	if v.host != nil {
		v.host.close()
	}
}

// LastLines gives the last console lines of the newest machine that had the CID: what it said before it failed.
func (v *VMM) LastLines(cid uint32, n int) []string {
	if m := v.newest(cid); m != nil {
		return m.console.lastLines(n)
	}
	return nil
}

// Console returns the newest text of a slot's console, if its machine is among the newest.
func (v *VMM) Console(slotUID uint64) (text []byte, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, m := range slices.Backward(v.recent) {
		if m.spec.SlotUID == slotUID {
			return m.console.text(), true
		}
	}
	return nil, false
}

// PID tells the process of the newest machine that has or had the CID: its QEMU's. It is 0 where there is none.
func (v *VMM) PID(cid uint32) int {
	if m := v.newest(cid); m != nil {
		return m.machine.PID()
	}
	return 0
}

// Memory reports what the VMM of the newest machine with the CID takes beside the enclave's RAM, in bytes; 0 where it is not
// known.
func (v *VMM) Memory(cid uint32) uint64 {
	m := v.newest(cid)
	if m == nil {
		return 0
	}
	n, _ := m.machine.Memory() // it may have ended just now
	return n
}

// newest finds the newest machine that has or had the CID.
func (v *VMM) newest(cid uint32) *vm {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, m := range slices.Backward(v.recent) {
		if m.spec.CID == cid {
			return m
		}
	}
	return nil
}

// Start implements hypervisor.VMM.
func (v *VMM) Start(ctx context.Context, spec hypervisor.VMSpec) (hypervisor.VM, error) {
	m := &vm{vmm: v, spec: spec, started: make(chan struct{}), done: make(chan struct{})}
	if err := m.start(ctx); err != nil {
		m.release()
		return nil, err
	}
	v.mu.Lock()
	v.recent = append(v.recent, m)
	if len(v.recent) > remembered {
		v.recent = slices.Delete(v.recent, 0, len(v.recent)-remembered)
	}
	v.mu.Unlock()
	go m.run()
	return m, nil
}

// vm is one machine. Its fields are written before it has started, and by run alone after that.
type vm struct {
	vmm     *VMM
	spec    hypervisor.VMSpec
	machine *qemu.Machine
	started chan struct{} // closed once machine is set
	console console
	undo    []func() // what release calls, last first
	done    chan struct{}
	exit    hypervisor.Exit
}

// Wait implements hypervisor.VM.
func (m *vm) Wait() hypervisor.Exit {
	<-m.done
	return m.exit
}

// Stop implements hypervisor.VM.
func (m *vm) Stop(ctx context.Context) error {
	err := m.machine.Stop(ctx)
	<-m.done
	return err
}

// run waits for the machine's end and takes down what was built around it.
func (m *vm) run() {
	exit := m.machine.Wait()
	m.console.close()
	m.release()
	m.exit = hypervisor.Exit{Reason: reasons[exit.Reason], Detail: exit.Detail}
	if m.exit.Reason == hypervisor.ExitGuest {
		m.exit.Report(m.console.text())
	}
	m.vmm.cfg.Log.Info("enclave's machine ended", "cid", m.spec.CID, "why", exit)
	close(m.done)
}

func (m *vm) release() {
	for len(m.undo) > 0 {
		last := len(m.undo) - 1
		m.undo[last]()
		m.undo = m.undo[:last]
	}
}

func (m *vm) later(f func()) { m.undo = append(m.undo, f) }

func (m *vm) start(ctx context.Context) error {
	if err := checkKernel(m.spec.Kernel, m.spec.Initrd, m.spec.MemoryBytes); err != nil {
		return err
	}
	machines, err := m.machineTypes(ctx)
	if err != nil {
		return err
	}
	cfg := qemu.Config{
		Name:         fmt.Sprintf("nesim-enclave-%d", m.spec.CID),
		Binary:       m.vmm.cfg.Binary,
		Sandbox:      m.vmm.cfg.Sandbox,
		Accel:        m.vmm.cfg.Accel,
		SingleThread: m.vmm.cfg.SingleThread,
		CPUs:         m.spec.CPUs,
		MemoryBytes:  m.spec.MemoryBytes,
		Kernel:       m.spec.Kernel,
		Initrd:       m.spec.Initrd,
		Cmdline:      m.spec.Cmdline,
		Console:      m.consoles(),
		ProbeKernel:  m.vmm.cfg.ProbeKernel,
		Machines:     machines,
		Say:          m.say,
	}
	dir := filepath.Join(m.vmm.cfg.Dir, strconv.FormatUint(uint64(m.spec.CID), 10))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the folder of the machine's sockets: %w", err)
	}
	m.later(func() { os.RemoveAll(dir) })
	if err := m.serveConsole(); err != nil {
		return err
	}
	if err := m.serveVsock(dir, &cfg); err != nil {
		return err
	}
	if err := m.serveNSM(dir, &cfg); err != nil {
		return err
	}
	machine, err := qemu.Start(ctx, cfg)
	if err != nil {
		return err
	}
	m.machine = machine
	close(m.started)
	return nil
}

// say logs a line of the machine's start, and hands it on.
func (m *vm) say(line string) {
	m.vmm.cfg.Log.Warn(line, "cid", m.spec.CID)
	if m.vmm.cfg.Say != nil {
		m.vmm.cfg.Say(m.spec, line)
	}
}

// consoles is what the machine's serial output goes to.
func (m *vm) consoles() io.Writer {
	if m.vmm.cfg.Console != nil {
		if w := m.vmm.cfg.Console(m.spec); w != nil {
			return io.MultiWriter(&m.console, w)
		}
	}
	return &m.console
}

// serveConsole makes the console of an enclave in debug mode readable where real ones have it: on the hypervisor's
// CID, at a port that follows from the enclave's.
func (m *vm) serveConsole() error {
	if !m.spec.Debug {
		return nil
	}
	addr := vsock.Addr{ContextID: vsock.CIDHypervisor, Port: m.spec.CID + vsock.ConsolePortBase}
	listener, err := m.vmm.cfg.Switch.Listen(addr)
	if err != nil {
		return fmt.Errorf("serve the console: %w", err)
	}
	var all sync.WaitGroup
	all.Go(func() { m.console.serve(listener) })
	m.later(func() {
		listener.Close()
		all.Wait()
	})
	return nil
}

// reasons translates QEMU's reasons into the hypervisor's.
var reasons = map[qemu.ExitReason]hypervisor.ExitReason{
	qemu.Stopped:       hypervisor.ExitAsked,
	qemu.GuestShutdown: hypervisor.ExitGuest,
	qemu.GuestReset:    hypervisor.ExitGuest,
	qemu.GuestPanic:    hypervisor.ExitGuestPanic,
	qemu.Killed:        hypervisor.ExitKilled,
	qemu.InternalError: hypervisor.ExitInternalError,
}
