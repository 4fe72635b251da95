package scripted

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/internal/guestwire"
	"github.com/nesim/nesim/sim/hypervisor"
	"github.com/nesim/nesim/sim/vsock"
	"github.com/nesim/nesim/sim/workload"
)

const (
	// latency is the least time between what happens to a guest and what it does about it. Each guest has its own, by its
	// CID: on a virtual clock, where nothing else takes time, no two guests and no guest and its parent act at the same
	// instant, so that their order is always the same.
	latency = 100 * time.Microsecond
	// stubborn is how long a VMM waits for a machine that does not listen before it kills it.
	stubborn = 3 * time.Second
)

// guest is one enclave.
type guest struct {
	vmm     *VMM
	spec    hypervisor.VMSpec
	does    Behaviour
	latency time.Duration
	console console
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

// Stop implements hypervisor.VM. A VMM that is stopped, or a machine that does not listen, is killed after a while.
func (g *guest) Stop(ctx context.Context) error {
	g.mu.Lock()
	deaf := g.does.IgnoreEnd || g.paused != nil
	g.mu.Unlock()
	if deaf {
		t := time.NewTimer(stubborn)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		case <-g.done:
		}
	}
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
	g.plan()
	g.exit = <-g.ending
	g.mu.Lock()
	g.ended = true
	g.mu.Unlock()
	g.vmm.cfg.Net.Detach(g.spec.CID) // so that the parent's ends are the first to be reset
	g.cancel()
	g.parts.Wait()
	g.console.close()
	g.vmm.forget(g)
	close(g.done)
}

// plan begins what the enclave does by itself. What is planned for the same time comes in this order.
func (g *guest) plan() {
	offset := g.latency
	at := func(when time.Duration, do func()) {
		when += offset
		offset += latency / 16
		g.begin(func() {
			if g.sleep(when) {
				do()
			}
		})
	}
	at(g.does.Boot, g.boot)
	for _, line := range g.does.Console {
		at(line.At, func() {
			for range max(line.Times, 1) {
				g.say(line.Text)
			}
		})
	}
	for _, d := range g.does.Dials {
		at(d.At, func() { g.sendTo(d.Port, d.Text) })
	}
	if e := g.does.Ends; e != nil {
		at(e.At, func() { g.finish(e.How, e.Code) })
	}
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
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-g.ctx.Done():
		return false
	}
	return g.goesOn()
}

// react takes the time that a guest takes, and reports whether it still runs.
func (g *guest) react() bool { return g.sleep(g.latency) }

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

// boot is init's part, once the kernel is up, to the workload.
func (g *guest) boot() {
	switch {
	case g.does.Mute:
	case g.does.Leaves:
		g.leave()
		return
	default:
		if err := g.heartbeat(); err != nil {
			if g.ctx.Err() == nil && g.react() {
				g.say(fmt.Sprintf("init: error: heartbeat to CID 3 port %d: %v", guestwire.HeartbeatPort, err))
				g.end(hypervisor.Exit{Reason: hypervisor.ExitGuest})
			}
			return
		}
	}
	g.spec.Loaded()
	if g.does.Workload == "none" {
		return
	}
	g.mu.Lock()
	g.up = true
	g.mu.Unlock()
	g.hello()
}

// heartbeat is what init does before anything else.
func (g *guest) heartbeat() error {
	conn, err := g.dial(guestwire.HeartbeatPort, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(g.ctx, func() { _ = conn.Reset() })
	defer stop()
	if _, err := conn.Write([]byte{guestwire.Heartbeat}); err != nil {
		return err
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return err
	}
	if answer[0] != guestwire.Heartbeat {
		return fmt.Errorf("answered by %#x", answer[0])
	}
	if !g.react() {
		return g.ctx.Err()
	}
	g.say("init: heartbeat answered by CID 3; starting /hello")
	return nil
}

// leave sends the heartbeat, is not there any more when the parent reads it, and ends.
func (g *guest) leave() {
	conn, err := g.dial(guestwire.HeartbeatPort, []byte{guestwire.Heartbeat})
	if err == nil {
		conn.Close()
	}
	if g.react() {
		g.end(hypervisor.Exit{Reason: hypervisor.ExitGuest})
	}
}

// dial connects to a port of the parent. What it is to find there at once, if anything, ends the guest's direction.
func (g *guest) dial(port uint32, all []byte) (*vsock.Stream, error) {
	g.mu.Lock()
	g.port++
	src := vsock.Addr{ContextID: g.spec.CID, Port: 1023 + g.port}
	g.mu.Unlock()
	near, far := vsock.Pipe(src, vsock.Addr{ContextID: vsock.CIDParent, Port: port})
	if all != nil {
		_, _ = near.Write(all)
		_ = near.Close()
	}
	if err := g.vmm.cfg.Net.Connect(g.ctx, far); err != nil {
		_ = far.Reset()
		return nil, err
	}
	return near, nil
}

// sendTo connects to a port of the parent, sends text, and tells on the console what comes back.
func (g *guest) sendTo(port uint32, text string) {
	conn, err := g.dial(port, nil)
	if err != nil {
		g.say(fmt.Sprintf("dial CID 3 port %d: %v", port, err))
		return
	}
	defer conn.Close()
	stop := context.AfterFunc(g.ctx, func() { _ = conn.Reset() })
	defer stop()
	_, _ = io.WriteString(conn, text)
	_ = conn.CloseWrite()
	answer, err := io.ReadAll(io.LimitReader(conn, maxAnswer))
	if g.react() {
		g.say(fmt.Sprintf("CID 3 port %d answers %q, %v", port, answer, err))
	}
}

// maxAnswer bounds what a guest reads from the parent, in bytes.
const maxAnswer = 64 << 10

// say prints a line on the console.
func (g *guest) say(line string) { fmt.Fprintf(&g.console, "%s\r\n", line) }

// finish ends the enclave in a way of its own.
func (g *guest) finish(how How, code int) {
	if !g.goesOn() {
		return
	}
	exit := hypervisor.Exit{Reason: hypervisor.ExitGuest}
	switch how {
	case Exit:
		g.say(workload.Report{Code: code}.Line())
	case Crash:
		g.say(workload.Report{Signal: int(unix.SIGSEGV)}.Line())
	case Panic:
		g.say("Kernel panic - not syncing: sysrq triggered crash")
		exit = hypervisor.Exit{Reason: hypervisor.ExitGuestPanic, Detail: "sysrq triggered crash"}
	case Killed:
		exit = killed
	case OutOfMemory:
		exit = hypervisor.Exit{Reason: hypervisor.ExitKilled, Detail: "SIGKILL (killed) by the host, which is out of memory"}
	case Failed:
		exit = hypervisor.Exit{Reason: hypervisor.ExitInternalError, Detail: "the VMM cannot go on"}
	}
	g.end(exit)
}

var killed = hypervisor.Exit{Reason: hypervisor.ExitKilled, Detail: "SIGKILL (killed)"}

// Dial implements vsock.Endpoint: the parent dials a port of the workload's.
func (g *guest) Dial(_ context.Context, src vsock.Addr, port uint32) (vsock.Conn, error) {
	g.mu.Lock()
	up := g.up
	g.mu.Unlock()
	serve := map[uint32]func(vsock.Conn){guestwire.EchoPort: g.echo, guestwire.ControlPort: g.control}[port]
	if !up || serve == nil {
		return nil, unix.ECONNRESET
	}
	near, far := vsock.Pipe(src, vsock.Addr{ContextID: g.spec.CID, Port: port})
	g.begin(func() {
		stop := context.AfterFunc(g.ctx, func() { _ = far.Reset() })
		defer far.Close()
		defer stop()
		serve(far)
	})
	return near, nil
}
