// Package instance is a simulated EC2 instance with Nitro Enclaves: the hypervisor behind its PCI device, the vsock,
// the NE driver, and the parent's programs that run enclaves as nitro-cli does.
//
// Ownership: an Instance owns the hypervisor's side (switch, machines, PCI socket) and the parent's side (driver,
// heartbeat listener, enclaves). The two meet on the PCI socket and the vsock switch alone. Every enclave has one
// goroutine, watch, which waits for its hang-up; Close ends all enclaves and waits for every goroutine.
//
// Locks: Instance.mu guards the list of enclaves and is a leaf.
package instance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/attest/pki"
	"github.com/nesim/nesim/internal/private"
	"github.com/nesim/nesim/pcidev"
	"github.com/nesim/nesim/qemu"
	"github.com/nesim/nesim/qemu/setup"
	"github.com/nesim/nesim/sim/hypervisor"
	"github.com/nesim/nesim/sim/nedriver"
	"github.com/nesim/nesim/sim/parent"
	"github.com/nesim/nesim/sim/vmm"
	"github.com/nesim/nesim/sim/vsock"
)

// ThreadsPerCore is how many CPUs a core of the parent has by default.
const ThreadsPerCore = 2

// Config shapes an instance. Zero values take the defaults.
type Config struct {
	Dir       string // a private folder for the machines' sockets
	PCISocket string // where the NE PCI device is served
	Log       *slog.Logger

	CPUs           int    // of the parent; default 16
	ThreadsPerCore int    // default 2
	CPUPool        string // a CPU list, as for the driver's parameter ne_cpus; default: all but the first core
	Slots          int    // how many enclaves there can be at a time; default 4, as on EC2
	Accel          string // auto, kvm or tcg; default: $NESIM_ACCEL, else auto
	Machine        string // auto, nitro or acpi; default: $NESIM_MACHINE, else auto
	Vsock          string // user (default): the vsock device in user space; vhost: the host kernel's

	// Between stands between the device and the hypervisor, for observers; may be nil.
	Between func(pcidev.Hypervisor) pcidev.Hypervisor

	ID  string // the EC2 instance ID; default: InstanceID
	NSM NSMConfig
}

func (c *Config) setDefaults() error {
	if c.CPUs == 0 {
		c.CPUs = 16
	}
	if c.ThreadsPerCore == 0 {
		c.ThreadsPerCore = ThreadsPerCore
	}
	if c.CPUPool == "" {
		c.CPUPool = fmt.Sprintf("%d-%d", c.ThreadsPerCore, c.CPUs-1)
	}
	if c.Vsock == "" {
		c.Vsock = "user"
	}
	if c.ID == "" {
		c.ID = InstanceID
	}
	if c.Vsock != "user" && c.Vsock != "vhost" {
		return fmt.Errorf("no vsock device %q: choose user or vhost", c.Vsock)
	}
	return nil
}

// Instance is a running instance.
type Instance struct {
	cfg     Config
	qemu    setup.QEMU
	accel   qemu.Accel
	machine qemu.MachineType

	// The hypervisor's side.
	net        *vsock.Switch
	vmm        *vmm.VMM
	hypervisor *hypervisor.Hypervisor
	pki        *pki.Instance  // nil where enclaves have no NSM
	serving    sync.WaitGroup // the PCI socket

	// The parent's side.
	heartbeats *parent.Heartbeats
	driver     *nedriver.Driver
	host       *nedriver.Host

	watches  sync.WaitGroup // one an enclave
	mu       sync.Mutex
	closed   bool
	parentVM bool       // a primary VM is the parent
	enclaves []*enclave // those that run or are about to, in the order of their making
	ended    []*enclave // the newest of those that have ended
	undo     []func()   // what Close calls, last first
	kept     map[uint32]*keptPort
	ports    sync.WaitGroup // one a kept port
}

// Start starts an instance. ctx bounds the start alone.
func Start(ctx context.Context, cfg Config) (*Instance, error) {
	i := &Instance{cfg: cfg}
	if err := i.start(ctx); err != nil {
		return nil, errors.Join(err, i.Close())
	}
	return i, nil
}

func (i *Instance) start(ctx context.Context) (err error) {
	if err := i.cfg.setDefaults(); err != nil {
		return err
	}
	if i.accel, err = qemu.ParseAccel(i.cfg.Accel); err != nil {
		return err
	}
	if i.machine, err = qemu.ParseMachineType(i.cfg.Machine); err != nil {
		return err
	}
	if i.qemu, err = setup.FindQEMU(ctx); err != nil {
		return err
	}
	if i.qemu.Sandbox == "" {
		i.cfg.Log.Warn("QEMU was built without seccomp: enclaves run without its sandbox", "qemu", i.qemu.Path)
	}
	if err := os.MkdirAll(i.cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("make the folder of the machines' sockets: %w", err)
	}
	if err := i.startHypervisor(); err != nil {
		return err
	}
	return i.startParent(ctx)
}

// startHypervisor brings up what stands behind the PCI device.
func (i *Instance) startHypervisor() (err error) {
	if i.pki, err = i.cfg.NSM.open(i.cfg.ID); err != nil {
		return err
	}
	i.net = vsock.New()
	i.later(func() { i.net.Close() })
	kernel, _ := setup.FindKernel() // without one, an enclave's own serves to probe KVM
	i.vmm, err = vmm.New(vmm.Config{
		Binary: i.qemu.Path, Sandbox: i.qemu.Sandbox, Accel: i.accel, ProbeKernel: kernel.Image, Machine: i.machineType, Say: i.sayTo, Dir: i.cfg.Dir, Switch: i.net, HostVsock: i.cfg.Vsock == "vhost", Log: i.cfg.Log,
		NSM: i.nsm,
	})
	if err != nil {
		return err
	}
	i.later(i.vmm.Close)
	i.hypervisor = hypervisor.New(hypervisor.Config{VMM: i.vmm, Slots: i.cfg.Slots, VCPUs: uint32(i.cfg.CPUs), Observe: i.log})
	i.later(func() { i.hypervisor.Close() })
	listener, err := private.Listen(i.cfg.PCISocket)
	if err != nil {
		return fmt.Errorf("serve the NE PCI device: %w", err)
	}
	var behind pcidev.Hypervisor = i.hypervisor
	if i.cfg.Between != nil {
		behind = i.cfg.Between(behind)
	}
	serving, stop := context.WithCancel(context.Background())
	i.serving.Go(func() {
		if err := pcidev.Serve(serving, listener, behind); err != nil && serving.Err() == nil {
			i.cfg.Log.Error("the NE PCI device failed", "error", err)
		}
	})
	i.later(func() {
		stop()
		listener.Close()
		i.serving.Wait()
	})
	return nil
}

// startParent loads the NE driver and listens for heartbeats.
func (i *Instance) startParent(ctx context.Context) (err error) {
	i.host, err = nedriver.NewHost(nedriver.HostConfig{
		Topology: nedriver.Topology{CPUs: i.cfg.CPUs, ThreadsPerCore: i.cfg.ThreadsPerCore},
	})
	if err != nil {
		return err
	}
	i.driver, err = nedriver.Load(ctx, i.host, i.cfg.PCISocket)
	if err != nil {
		return fmt.Errorf("load the NE driver: %w", err)
	}
	i.later(func() {
		if err := i.driver.Close(); err != nil {
			i.cfg.Log.Warn("unload the NE driver", "error", err)
		}
	})
	if err := i.driver.SetCPUs(i.cfg.CPUPool); err != nil {
		return fmt.Errorf("set the CPU pool %s: %w", i.cfg.CPUPool, err)
	}
	i.heartbeats = parent.New(i.net)
	return nil
}

// log tells the log what happens behind the device.
func (i *Instance) log(e hypervisor.Event) {
	attrs := []any{"slot", fmt.Sprintf("%#x", e.SlotUID)}
	if e.CID != 0 {
		attrs = append(attrs, "cid", e.CID)
	}
	switch {
	case e.Err != nil:
		attrs = append(attrs, "error", e.Err)
	case e.Kind == hypervisor.EnclaveExited:
		attrs = append(attrs, "exit", e.Exit)
	}
	i.cfg.Log.Info(e.Kind.String(), attrs...)
}

func (i *Instance) later(f func()) { i.undo = append(i.undo, f) }

// Close ends every enclave and the instance.
func (i *Instance) Close() error {
	i.mu.Lock()
	i.closed = true
	running := append([]*enclave(nil), i.enclaves...)
	i.mu.Unlock()
	for _, e := range running {
		e.terminate()
	}
	i.watches.Wait()
	i.dropPorts()
	for len(i.undo) > 0 {
		last := len(i.undo) - 1
		i.undo[last]()
		i.undo = i.undo[:last]
	}
	return nil
}

// QEMU reports which QEMU runs the enclaves, and with which accelerator.
func (i *Instance) QEMU() (version, accel string) { return i.qemu.Version.String(), string(i.accel) }

// ThreadsPerCore is how many CPUs a core of the parent has: enclaves are given whole cores.
func (i *Instance) ThreadsPerCore() int { return i.cfg.ThreadsPerCore }

// ID is the parent's EC2 instance ID.
func (i *Instance) ID() string { return i.cfg.ID }

// CPUPool is the list of CPUs that enclaves are given.
func (i *Instance) CPUPool() string {
	list, _ := i.driver.CPUs()
	return list
}

// noSuchCID is the error for a CID that no enclave has: EHOSTUNREACH, in words for people.
type noSuchCID uint32

func (cid noSuchCID) Error() string {
	return fmt.Sprintf("no enclave has CID %d: nesim describe-enclaves lists the running ones", uint32(cid))
}

func (noSuchCID) Unwrap() error { return unix.EHOSTUNREACH }

// DialVsock connects from the parent to a vsock port. EHOSTUNREACH where no enclave has the CID.
func (i *Instance) DialVsock(ctx context.Context, cid, port uint32) (vsock.Conn, error) {
	conn, err := i.net.Dial(ctx, vsock.Addr{ContextID: vsock.CIDParent, Port: vsock.PortAny}, vsock.Addr{ContextID: cid, Port: port})
	if errors.Is(err, unix.EHOSTUNREACH) {
		return nil, noSuchCID(cid)
	}
	return conn, err
}

// AwaitVsock is DialVsock, tried until somebody listens on the port: an enclave's heartbeat comes before its workload.
func (i *Instance) AwaitVsock(ctx context.Context, cid, port uint32) (vsock.Conn, error) {
	for {
		conn, err := i.DialVsock(ctx, cid, port)
		if !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.ECONNREFUSED) {
			return conn, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(dialPause):
		}
	}
}

// dialPause is the time between two tries of AwaitVsock.
const dialPause = 50 * time.Millisecond
