package scripted

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/sim/hypervisor"
	"github.com/nesim/nesim/sim/parent"
	"github.com/nesim/nesim/sim/vsock"
)

// guest is one enclave.
type guest struct {
	vmm     *VMM
	spec    hypervisor.VMSpec
	does    Behaviour
	console io.Writer
	nsm     func(request []byte, room int) []byte

	ctx    context.Context // done when the enclave ends
	cancel context.CancelFunc
	parts  sync.WaitGroup
	ending chan hypervisor.Exit // the first counts
	done   chan struct{}
	exit   hypervisor.Exit

	mu     sync.Mutex    // a leaf
	up     bool          // the workload listens
	silent bool          // hung: it listens, and does nothing more
	paused chan struct{} // closed by going on; nil: it goes on
	ended  bool          // no part may begin any more
	port   uint32
}

// Wait implements hypervisor.VM.
func (g *guest) Wait() hypervisor.Exit {
	<-g.done
	return g.exit
}

// Stop implements hypervisor.VM.
func (g *guest) Stop(context.Context) error {
	g.end(hypervisor.Exit{Reason: hypervisor.ExitAsked})
	<-g.done
	return nil
}

// end ends the enclave, unless something else has.
func (g *guest) end(exit hypervisor.Exit) {
	select {
	case g.ending <- exit:
	default:
	}
}

// run lives an enclave's life.
func (g *guest) run() {
	g.begin(g.boot)
	for _, line := range g.does.Console {
		g.begin(func() { g.sayLater(line) })
	}
	if e := g.does.Ends; e != nil {
		g.begin(func() {
			if g.sleep(e.At) {
				g.finish(e.How, e.Code)
			}
		})
	}
	g.exit = <-g.ending
	g.mu.Lock()
	g.ended = true
	g.mu.Unlock()
	g.cancel()
	g.vmm.cfg.Net.Detach(g.spec.CID)
	g.parts.Wait()
	g.vmm.forget(g)
	close(g.done)
}

// begin runs a part of the enclave.
func (g *guest) begin(part func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.ended {
		g.parts.Go(part)
	}
}

// sleep waits for the enclave's clock, and reports whether it still runs.
func (g *guest) sleep(d time.Duration) bool {
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-g.ctx.Done():
			return false
		}
	}
	return g.goesOn()
}

// goesOn waits while the enclave is paused, and reports whether it still runs.
func (g *guest) goesOn() bool {
	for {
		g.mu.Lock()
		paused := g.paused
		g.mu.Unlock()
		if paused == nil {
			return g.ctx.Err() == nil
		}
		select {
		case <-paused:
		case <-g.ctx.Done():
			return false
		}
	}
}

func (g *guest) pause(paused bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case paused && g.paused == nil:
		g.paused = make(chan struct{})
	case !paused && g.paused != nil:
		close(g.paused)
		g.paused = nil
	}
}

// boot is the kernel's and init's part, up to the workload.
func (g *guest) boot() {
	if !g.sleep(g.does.Boot) {
		return
	}
	if !g.does.Mute {
		if err := g.heartbeat(); err != nil {
			if g.ctx.Err() == nil {
				g.say(fmt.Sprintf("init: error: heartbeat to CID 3 port %d: %v", parent.HeartbeatPort, err))
				g.end(hypervisor.Exit{Reason: hypervisor.ExitGuest})
			}
			return
		}
	}
	g.spec.Loaded()
	g.mu.Lock()
	g.up = g.does.Workload != "none"
	g.mu.Unlock()
	if g.up {
		g.hello()
	}
}

// heartbeat is what init does before anything else.
func (g *guest) heartbeat() error {
	conn, err := g.dial(parent.HeartbeatPort)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(g.ctx, func() { conn.Close() })
	defer stop()
	if _, err := conn.Write([]byte{parent.Heartbeat}); err != nil {
		return err
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return err
	}
	if answer[0] != parent.Heartbeat {
		return fmt.Errorf("answered by %#x", answer[0])
	}
	g.say("init: heartbeat answered by CID 3; starting /hello")
	return nil
}

// dial connects to a port of the parent.
func (g *guest) dial(port uint32) (vsock.Conn, error) {
	g.mu.Lock()
	g.port++
	src := vsock.Addr{ContextID: g.spec.CID, Port: 1023 + g.port}
	g.mu.Unlock()
	near, far := vsock.Pipe(src, vsock.Addr{ContextID: vsock.CIDParent, Port: port})
	if err := g.vmm.cfg.Net.Connect(g.ctx, far); err != nil {
		_ = far.Reset()
		return nil, err
	}
	return near, nil
}

// say prints a line on the console.
func (g *guest) say(line string) { fmt.Fprintf(g.console, "%s\r\n", line) }

func (g *guest) sayLater(l Line) {
	if !g.sleep(l.At) {
		return
	}
	for range max(l.Times, 1) {
		g.say(l.Text)
	}
}

// finish ends the enclave in a way of its own.
func (g *guest) finish(how How, code int) {
	if !g.goesOn() {
		return
	}
	switch how {
	case Exit:
		g.say(fmt.Sprintf("init: workload exited with code %d; powering off", code))
		g.end(hypervisor.Exit{Reason: hypervisor.ExitGuest})
	case Panic:
		g.say("Kernel panic - not syncing: sysrq triggered crash")
		g.end(hypervisor.Exit{Reason: hypervisor.ExitGuestPanic, Detail: "sysrq triggered crash"})
	case Killed:
		g.end(hypervisor.Exit{Reason: hypervisor.ExitKilled, Detail: "SIGKILL (killed)"})
	case OutOfMemory:
		g.end(hypervisor.Exit{Reason: hypervisor.ExitKilled, Detail: "SIGKILL (killed) by the host, which is out of memory"})
	default:
		g.end(hypervisor.Exit{Reason: hypervisor.ExitGuest})
	}
}

// Dial implements vsock.Endpoint: the parent dials a port of the workload's.
func (g *guest) Dial(_ context.Context, src vsock.Addr, port uint32) (vsock.Conn, error) {
	g.mu.Lock()
	up := g.up
	g.mu.Unlock()
	serve := map[uint32]func(vsock.Conn){echoPort: g.echo, controlPort: g.control}[port]
	if !up || serve == nil {
		return nil, unix.ECONNRESET
	}
	near, far := vsock.Pipe(src, vsock.Addr{ContextID: g.spec.CID, Port: port})
	g.begin(func() {
		defer far.Close()
		stop := context.AfterFunc(g.ctx, func() { _ = far.Reset() })
		defer stop()
		if g.goesOn() {
			serve(far)
		}
	})
	return near, nil
}
