// Package scripted runs enclaves that are little programs in this process: a hypervisor.VMM that boots no machine. On
// a virtual clock an enclave's hour takes no time.
//
// An enclave owns its goroutines: Wait returns when all have ended.
package scripted

import (
	"context"
	"io"
	"net"
	"sync"
	"time"

	"github.com/nesim/nesim/sim/hypervisor"
	"github.com/nesim/nesim/sim/vsock"
)

// Net is the vsock switch as an enclave needs it.
type Net interface {
	Listen(addr vsock.Addr) (net.Listener, error)
	Attach(cid uint32, e vsock.Endpoint) error
	Detach(cid uint32)
	Connect(ctx context.Context, c vsock.Conn) error
}

// Config says what enclaves are made with. All but Net may be nil.
type Config struct {
	Net       Net
	Behaviour func(hypervisor.VMSpec) Behaviour
	Console   func(hypervisor.VMSpec) io.Writer
	// NSM returns what answers an enclave's requests to its NSM, or nil where it has none.
	NSM func(hypervisor.VMSpec) (func(request []byte, room int) []byte, error)
}

// VMM implements hypervisor.VMM.
type VMM struct {
	cfg Config

	mu     sync.Mutex // a leaf
	guests map[uint32]*guest
}

// New makes a VMM.
func New(cfg Config) *VMM { return &VMM{cfg: cfg, guests: make(map[uint32]*guest)} }

// Start implements hypervisor.VMM.
func (v *VMM) Start(_ context.Context, spec hypervisor.VMSpec) (hypervisor.VM, error) {
	g := &guest{vmm: v, spec: spec, ending: make(chan hypervisor.Exit, 1), done: make(chan struct{})}
	g.latency = latency + time.Duration(spec.CID%100_000)
	g.ctx, g.cancel = context.WithCancel(context.Background())
	if err := v.connect(g); err != nil {
		g.cancel()
		return nil, err
	}
	v.mu.Lock()
	v.guests[spec.CID] = g
	v.mu.Unlock()
	go g.run()
	return g, nil
}

// connect gives a guest what it is made with.
func (v *VMM) connect(g *guest) (err error) {
	if v.cfg.Behaviour != nil {
		g.does = v.cfg.Behaviour(g.spec)
	}
	g.console.also = io.Discard
	if v.cfg.Console != nil {
		g.console.also = v.cfg.Console(g.spec)
	}
	if v.cfg.NSM != nil {
		if g.nsm, err = v.cfg.NSM(g.spec); err != nil {
			return err
		}
	}
	if err := g.console.open(v.cfg.Net, g.spec.CID, g.spec.Debug); err != nil {
		return err
	}
	if err = v.cfg.Net.Attach(g.spec.CID, g); err != nil {
		g.console.close()
	}
	return err
}

// Kill ends an enclave as SIGKILL to its VMM would.
func (v *VMM) Kill(cid uint32) {
	if g := v.find(cid); g != nil {
		g.end(killed)
	}
}

// Pause stops and continues an enclave, as SIGSTOP and SIGCONT to its VMM would.
func (v *VMM) Pause(cid uint32, paused bool) {
	if g := v.find(cid); g != nil {
		g.pause(paused)
	}
}

func (v *VMM) find(cid uint32) *guest {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.guests[cid]
}

func (v *VMM) forget(g *guest) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.guests[g.spec.CID] == g {
		delete(v.guests, g.spec.CID)
	}
}
