package conformance

import (
	"context"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/pcidev"
	"github.com/nesim/nesim/sim/hypervisor"
)

// scripted is an instance whose enclaves are no machines.
type scripted struct {
	socket     string
	hypervisor *hypervisor.Hypervisor
	crashing   atomic.Bool // enclaves end as soon as they have begun
	exits      atomic.Int64
}

func newScripted(t *testing.T, dir string) *scripted {
	s := &scripted{socket: filepath.Join(dir, "pci.sock")}
	s.hypervisor = hypervisor.New(hypervisor.Config{VMM: s, Observe: func(e hypervisor.Event) {
		if e.Kind == hypervisor.EnclaveExited {
			s.exits.Add(1)
		}
	}})
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.socket, Net: "unix"})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { _ = pcidev.Serve(ctx, listener, s.hypervisor) })
	t.Cleanup(func() {
		cancel()
		serving.Wait()
		s.hypervisor.Close()
	})
	return s
}

// Start implements hypervisor.VMM.
func (s *scripted) Start(context.Context, hypervisor.VMSpec) (hypervisor.VM, error) {
	m := &scriptedVM{end: make(chan hypervisor.Exit, 2)}
	if s.crashing.Load() {
		// Some end before the start is answered, some while it is, some after.
		delay := time.Duration(s.exits.Load()%8) * time.Millisecond
		time.AfterFunc(delay, func() { m.end <- hypervisor.Exit{Reason: hypervisor.ExitGuestPanic} })
	}
	return m, nil
}

type scriptedVM struct {
	end chan hypervisor.Exit
}

func (m *scriptedVM) Wait() hypervisor.Exit { return <-m.end }

func (m *scriptedVM) Stop(context.Context) error {
	select {
	case m.end <- hypervisor.Exit{Reason: hypervisor.ExitAsked}:
	default:
	}
	return nil
}
