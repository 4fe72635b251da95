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
	cfg     Config // Kernel and Initrd are our own duplicates
	verdict verdict

	stopping, killing context.Context
	stop, kill        context.CancelFunc
	done              chan struct{} // closed when exit is set and nothing is left
	exit              Exit

	mu     sync.Mutex
	cur    *run
	booted bool
}

// Start starts a guest and returns when it executes its first instructions, or an error in one line
// that tells why QEMU did not. ctx bounds the start only. When Start fails nothing is left behind.
//
// Under [Auto] a machine whose KVM fails before [Machine.Booted] is started once more under TCG, from
// the beginning, on the same sockets.
func Start(ctx context.Context, cfg Config) (*Machine, error) {
	accel, err := ParseAccel(string(cfg.Accel))
	if err != nil {
		return nil, err
	}
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("cannot make a microvm: %w", err)
	}
	verdict := newVerdict(cfg.Binary)
	accels, err := accel.candidates(verdict)
	if err != nil {
		return nil, err
	}
	m := &Machine{cfg: cfg, verdict: verdict, done: make(chan struct{})}
	if err := m.duplicate(); err != nil {
		return nil, err
	}
	first, rest, err := m.first(ctx, accels)
	if err != nil {
		m.release()
		return nil, err
	}
	m.stopping, m.stop = context.WithCancel(context.Background())
	m.killing, m.kill = context.WithCancel(context.Background())
	m.cur = first
	go m.supervise(first, rest)
	return m, nil
}

// first launches under the first accelerator that starts at all, and gives what is left to try.
func (m *Machine) first(ctx context.Context, accels []Accel) (*run, []Accel, error) {
	r, err := launch(ctx, &m.cfg, accels[0])
	if err == nil || len(accels) == 1 || ctx.Err() != nil || !blamesKVM(err.Error()) {
		return r, accels[1:], err
	}
	why := err.Error()
	if r, err = launch(ctx, &m.cfg, accels[1]); err == nil {
		m.giveUpKVM(why)
	}
	return r, nil, err
}

// supervise sees the guest to its end, through a second start under TCG where KVM fails.
func (m *Machine) supervise(r *run, rest []Accel) {
	defer close(m.done)
	defer m.release()
	defer m.stop() // frees the contexts
	defer m.kill()
	m.exit = r.watch(m.stopping.Done(), m.killing.Done())
	kvmFailed := m.exit.Reason == InternalError && blamesKVM(m.exit.Detail)
	if !kvmFailed || len(rest) == 0 || m.hasBooted() || m.stopping.Err() != nil {
		return
	}
	m.giveUpKVM(m.exit.Detail)
	r, err := launch(m.stopping, &m.cfg, rest[0])
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
	m.exit = r.watch(m.stopping.Done(), m.killing.Done())
}

// giveUpKVM remembers and tells that KVM does not work here.
func (m *Machine) giveUpKVM(why string) {
	m.verdict.record(why)
	if m.cfg.OnFallback != nil {
		m.cfg.OnFallback("KVM does not work here (" + why + "); using TCG from now on")
	}
}

// Booted tells that the guest has come up (its heartbeat was heard): from here on a failure of KVM is
// an end like any other.
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
func (m *Machine) Accel() Accel { return m.current().accel }

// PID is QEMU's process id; a second start under TCG changes it.
func (m *Machine) PID() int { return m.current().proc.cmd.Process.Pid }

func (m *Machine) current() *run {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cur
}

// Done is closed when the machine has ended and nothing of it is left.
func (m *Machine) Done() <-chan struct{} { return m.done }

// Wait waits for the machine's end and tells how it ended.
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
