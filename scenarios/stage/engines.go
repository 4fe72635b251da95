package stage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"syscall"

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

func (scriptedEngine) Memory(uint32) uint64 { return 0 }

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
		Binary: program.Path, Sandbox: program.Sandbox, Dir: dir, Switch: &faultyNet{s.Net, s}, SingleThread: s.cfg.Crowded, Log: slog.New(slog.DiscardHandler), Console: s.console,
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
