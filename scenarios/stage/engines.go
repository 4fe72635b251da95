package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/nesim/nesim/eif"
	"github.com/nesim/nesim/eif/pack"
	"github.com/nesim/nesim/pcidev"
	"github.com/nesim/nesim/qemu/nsmdev"
	"github.com/nesim/nesim/qemu/setup"
	"github.com/nesim/nesim/scenarios/scripted"
	"github.com/nesim/nesim/sim/hypervisor"
	"github.com/nesim/nesim/sim/vmm"
)

// scriptedEngine is the one without machines.
type scriptedEngine struct{ *scripted.VMM }

func (s *Stage) newScripted() engine {
	return scriptedEngine{scripted.New(scripted.Config{
		Net: &faultyNet{s.Net, s}, Console: s.console, NSM: s.nsm,
		Behaviour: func(spec hypervisor.VMSpec) scripted.Behaviour {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.actor(spec.SlotUID).does
		},
	})}
}

func (scriptedEngine) bus(_ context.Context, f *faultyDevice, hv pcidev.Hypervisor) (bus, error) {
	return newLocalBus(f, hv)
}

func (e scriptedEngine) kill(cid uint32, signal os.Signal) error {
	switch signal {
	case syscall.SIGKILL:
		e.Kill(cid)
	case syscall.SIGSTOP:
		e.Pause(cid, true)
	case syscall.SIGCONT:
		e.Pause(cid, false)
	default:
		return fmt.Errorf("signal %v: only SIGKILL, SIGSTOP and SIGCONT have a meaning", signal)
	}
	return nil
}

func (scriptedEngine) close() error { return nil }

// qemuEngine is the one with real microvms.
type qemuEngine struct {
	*vmm.VMM
	dir string
}

func (s *Stage) newQEMU(ctx context.Context) (engine, error) {
	program, err := setup.FindQEMU(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "nesim-stage-")
	if err != nil {
		return nil, err
	}
	machines, err := vmm.New(vmm.Config{
		Binary: program.Path, Dir: dir, Switch: &faultyNet{s.Net, s}, Log: slog.New(slog.DiscardHandler), Console: s.console,
		NSM: func(spec hypervisor.VMSpec) (nsmdev.Handler, error) {
			answer, err := s.nsm(spec)
			return answer, err
		},
	})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &qemuEngine{machines, dir}, nil
}

func (*qemuEngine) bus(ctx context.Context, f *faultyDevice, hv pcidev.Hypervisor) (bus, error) {
	return newSocketBus(ctx, f, hv)
}

func (e *qemuEngine) kill(cid uint32, signal os.Signal) error {
	pid, number := e.PID(cid), signal.(syscall.Signal)
	if pid == 0 {
		return fmt.Errorf("no enclave has CID %d", cid)
	}
	return syscall.Kill(pid, number)
}

// close finds out whether a machine has left anything: its sockets lie in the folder.
func (e *qemuEngine) close() error {
	e.Close()
	left, _ := os.ReadDir(e.dir)
	err := os.RemoveAll(e.dir)
	if len(left) > 0 {
		err = errors.Join(fmt.Errorf("a machine's folder is left over: %s", left[0].Name()), err)
	}
	return err
}

// hello is the image of the hello enclave for each engine, made once in a file without a name.
var hello = map[Engine]func(context.Context) (*os.File, error){
	Scripted: once(smallImage),
	QEMU:     once(helloImage),
}

// once makes something at the first call that succeeds.
func once(make func(context.Context) (*os.File, error)) func(context.Context) (*os.File, error) {
	var mu sync.Mutex
	var made *os.File
	return func(ctx context.Context) (_ *os.File, err error) {
		mu.Lock()
		defer mu.Unlock()
		if made == nil {
			made, err = make(ctx)
		}
		return made, err
	}
}

// Hello returns the hello enclave's image, as this engine runs it, in a file at offset 0. It is shared: do not change it.
func (s *Stage) Hello(ctx context.Context) (*os.File, int64, error) {
	f, err := hello[s.cfg.Engine](ctx)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// smallImage is an image of which nothing is ever booted.
func smallImage(ctx context.Context) (*os.File, error) {
	return unnamed(func(f *os.File) error {
		_, err := eif.Build(ctx, f, eif.BuildSpec{
			Kernel: strings.NewReader("no kernel"), Cmdline: pack.DefaultCmdline, Ramdisks: []io.Reader{strings.NewReader("no ramdisk")},
		})
		return err
	})
}

// helloImage is the hello enclave's.
func helloImage(ctx context.Context) (*os.File, error) {
	application, err := pack.Hello()
	if err != nil {
		return nil, err
	}
	kernel, err := setup.FindKernel()
	if err != nil {
		return nil, err
	}
	modules, err := kernel.LoadOrder(pack.Modules...)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "nesim-hello-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "hello.eif")
	if _, err := pack.Build(ctx, pack.Spec{Application: application, Kernel: kernel.Image, Modules: modules, Output: path}); err != nil {
		return nil, err
	}
	return os.Open(path)
}

func unnamed(fill func(*os.File) error) (*os.File, error) {
	f, err := os.CreateTemp("", "nesim-image-")
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.Remove(f.Name()), fill(f)); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
