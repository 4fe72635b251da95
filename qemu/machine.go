package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// reapTime is how long a killed QEMU may take to die before Stop gives up on it.
const reapTime = 30 * time.Second

var errEnded = errors.New("the machine has ended")

// A Machine is one running guest. Its methods may be called from any goroutine.
type Machine struct {
	cfg   Config // Kernel and Initrd are our own duplicates
	accel Accel

	stopping, killing context.Context
	stop, kill        context.CancelFunc
	done              chan struct{} // closed when exit is set and nothing is left
	exit              Exit

	mu     sync.Mutex
	cur    *run
	booted bool
}

// Start starts a guest and returns when it executes its first instructions, or an error in one line
// that says why QEMU did not. ctx bounds the start only. When Start fails nothing is left behind.
//
// A guest that ends before [Machine.Booted] is started once more, from the beginning and on the same sockets, on the next
// of its Config's machine types, if there is another.
func Start(ctx context.Context, cfg Config) (*Machine, error) {
	accel, err := ParseAccel(string(cfg.Accel))
	if err != nil {
		return nil, err
	}
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("cannot make a microvm: %w", err)
	}
	if len(cfg.Machines) == 0 {
		cfg.Machines = []MachineType{ACPI}
	}
	if accel, err = accel.Choose(ctx, Probe{cfg.Binary, cfg.ProbeKernel, cfg.Kernel}, cfg.Say); err != nil {
		return nil, err
	}
	for _, machine := range cfg.Machines {
		if err := checkKernelLine(&cfg, accel, machine); err != nil {
			return nil, fmt.Errorf("cannot make a microvm: %w", err)
		}
	}
	m := &Machine{cfg: cfg, accel: accel, done: make(chan struct{})}
	if err := m.duplicate(); err != nil {
		return nil, err
	}
	first, err := launch(ctx, &m.cfg, accel, cfg.Machines[0])
	if err != nil {
		m.release()
		return nil, err
	}
	m.stopping, m.stop = context.WithCancel(context.Background())
	m.killing, m.kill = context.WithCancel(context.Background())
	m.cur = first
	go m.supervise(first)
	return m, nil
}

// supervise sees the guest to its end, through another start where the machine type does not suit it.
func (m *Machine) supervise(r *run) {
	defer close(m.done)
	defer m.release()
	defer m.stop() // frees the contexts
	defer m.kill()
	for _, next := range append(m.cfg.Machines[1:len(m.cfg.Machines):len(m.cfg.Machines)], "") {
		m.exit = r.watch(m.stopping.Done(), m.killing.Done())
		if next == "" || !m.exit.byGuest() || m.hasBooted() || m.stopping.Err() != nil {
			return
		}
		m.say(fmt.Sprintf("the guest did not come up on the machine %q (%v); starting it on %q", r.machine, m.exit, next))
		var err error
		r, err = launch(m.stopping, &m.cfg, m.accel, next)
		switch {
		case m.stopping.Err() != nil && err != nil:
			m.exit = Exit{Reason: Stopped}
			return
		case err != nil:
			m.exit = Exit{InternalError, err.Error()}
			return
		}
		m.mu.Lock()
		m.cur = r
		m.mu.Unlock()
	}
}

func (m *Machine) say(line string) {
	if m.cfg.Say != nil {
		m.cfg.Say(line)
	}
}

// Booted reports that the guest has come up (its heartbeat was heard): from here on its end is final.
func (m *Machine) Booted() {
	m.mu.Lock()
	m.booted = true
	m.mu.Unlock()
}

func (m *Machine) hasBooted() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.booted
}

// Accel is the accelerator in use, KVM or TCG.
func (m *Machine) Accel() Accel { return m.accel }

// Type is the machine type in use.
func (m *Machine) Type() MachineType { return m.current().machine }

// PID is QEMU's process id; a second start changes it.
func (m *Machine) PID() int { return m.current().proc.PID() }

func (m *Machine) current() *run {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cur
}

// Done is closed when the machine has ended and nothing of it is left.
func (m *Machine) Done() <-chan struct{} { return m.done }

// Wait waits for the machine's end and reports how it ended.
func (m *Machine) Wait() Exit {
	<-m.done
	return m.exit
}

// Status asks QEMU for the machine's run state, such as "running" (QEMU, qapi/run-state.json, RunState).
func (m *Machine) Status(ctx context.Context) (string, error) {
	select {
	case <-m.done:
		return "", errEnded
	default:
		return m.current().mon.status(ctx)
	}
}

// Stop ends the machine: QEMU is told to quit, and killed when it does not within three seconds or
// when ctx ends. It returns when nothing is left; the error is of a QEMU that even a kill does not end.
func (m *Machine) Stop(ctx context.Context) error {
	m.stop()
	select {
	case <-m.done:
		return nil
	case <-ctx.Done():
		return m.Kill()
	}
}

// Kill ends the machine without asking QEMU.
func (m *Machine) Kill() error {
	m.kill()
	m.stop()
	select {
	case <-m.done:
		return nil
	case <-time.After(reapTime):
		return fmt.Errorf("QEMU process %d was killed and does not end", m.PID())
	}
}

// duplicate makes the machine independent of the caller's descriptors.
func (m *Machine) duplicate() (err error) {
	if m.cfg.Kernel, err = dup(m.cfg.Kernel); err != nil {
		return fmt.Errorf("cannot keep the kernel open: %w", err)
	}
	if m.cfg.Initrd == nil {
		return nil
	}
	if m.cfg.Initrd, err = dup(m.cfg.Initrd); err != nil {
		m.cfg.Kernel.Close()
		return fmt.Errorf("cannot keep the initrd open: %w", err)
	}
	return nil
}

func (m *Machine) release() {
	m.cfg.Kernel.Close()
	if m.cfg.Initrd != nil {
		m.cfg.Initrd.Close()
	}
}

func dup(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}
