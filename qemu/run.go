package qemu

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/digitalocean/go-qemu/qmp"
)

const (
	// startTime bounds the time from QEMU's birth to its first instruction for the guest.
	startTime = time.Minute
	// stopGrace is how long QEMU may take to end by itself, once it was told to or has said that it will.
	stopGrace = 3 * time.Second
	// exitTime is how long a QEMU whose QMP failed may take to say why it ends.
	exitTime = 2 * time.Second
)

// A run is one QEMU with one machine type, from its first instruction for the guest to its end.
type run struct {
	machine MachineType
	proc    *process
	mon     *monitor
	console *relay
	helpers sync.WaitGroup // commands sent beside watch
}

// launch starts QEMU and lets the guest go. When it fails nothing is left.
func launch(ctx context.Context, cfg *Config, accel Accel, machine MachineType) (*run, error) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	listener, mon, err := listenQMP()
	if err != nil {
		return nil, err
	}
	files := []*os.File{listener, cfg.Kernel}
	if cfg.Initrd != nil {
		files = append(files, cfg.Initrd)
	}
	r := &run{machine: machine, mon: mon, console: newRelay(cfg.Console)}
	r.proc, err = startProcess(cfg.Binary, arguments(cfg, accel, machine), files, r.console)
	listener.Close() // so that a QEMU that ends hangs up
	if err != nil {
		mon.disconnect()
		r.console.close()
		return nil, err
	}
	if err := r.greet(ctx, accel); err != nil {
		r.proc.Kill()
		<-r.proc.Done()
		r.tidy()
		return nil, err
	}
	return r, nil
}

// greet connects QMP and starts the guest; when ctx ends first it kills QEMU.
func (r *run) greet(ctx context.Context, accel Accel) error {
	unhook := context.AfterFunc(ctx, r.proc.Kill)
	err := r.mon.connect()
	unhook()
	if err == nil && accel == TCG { // under KVM the date is kvm-clock's
		err = r.mon.setClock(ctx, time.Now())
	}
	if err == nil {
		err = r.mon.run(ctx, "cont", nil)
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("QEMU did not start: %w", context.Cause(ctx))
	}
	select {
	case <-r.proc.Done():
		_, words := r.proc.ending()
		return fmt.Errorf("QEMU ended at once: %s", words)
	case <-time.After(exitTime):
		return err
	}
}

// tidy ends what outlives the process.
func (r *run) tidy() {
	r.mon.disconnect()
	r.helpers.Wait()
	r.console.close()
}

// watch waits for the end of QEMU and reports its first cause. It sees to it that the end comes soon
// after the cause: stopping asks QEMU to quit, killing does not ask.
func (r *run) watch(stopping, killing <-chan struct{}) Exit {
	var exit Exit
	var deadline <-chan time.Time
	end := func(reason ExitReason, grace time.Duration) {
		if exit.Reason == 0 && reason != 0 {
			exit.Reason = reason
			deadline = time.After(grace)
		}
	}
	status := make(chan string, 1)
	spins, halts, events := r.console.words.spins, r.console.words.halts, r.mon.events
	for {
		select {
		case e, ok := <-events:
			if !ok {
				events = nil
				continue
			}
			if e.Event == "STOP" && exit.Reason == 0 {
				r.askStatus(status)
			}
			end(cause(e), stopGrace)
		case s := <-status:
			if s == "internal-error" {
				end(InternalError, 0)
			}
		case <-spins:
			spins = nil
			end(GuestPanic, 0)
		case <-halts:
			halts = nil
			end(GuestShutdown, 0)
		case <-stopping:
			stopping = nil
			end(Stopped, stopGrace)
			r.helpers.Go(func() { _ = r.mon.run(context.Background(), "quit", nil) })
		case <-killing:
			killing = nil
			end(Stopped, 0)
			r.proc.Kill()
		case <-deadline:
			r.proc.Kill()
		case <-r.proc.Done():
			if exit.Reason == 0 {
				r.flush(events, end)
			}
			r.tidy()
			return r.explain(exit)
		}
	}
}

// askStatus queries the run state without keeping watch from reading events.
func (r *run) askStatus(answer chan<- string) {
	r.helpers.Go(func() {
		s, _ := r.mon.status(context.Background())
		select {
		case answer <- s:
		default:
		}
	})
}

// flush reads the events that a dead QEMU left behind, for its first cause. Its time is bounded since go-qemu, when the
// connection breaks off, waits for somebody to ask for that error and does not end the events.
func (r *run) flush(events <-chan qmp.Event, end func(ExitReason, time.Duration)) {
	limit := time.After(flushTime)
	for events != nil {
		select {
		case e, ok := <-events:
			if !ok {
				return
			}
			end(cause(e), stopGrace)
		case <-limit:
			return
		}
	}
}

// cause is the reason to end that an event tells, or 0 (QEMU, qapi/run-state.json: SHUTDOWN,
// ShutdownCause, RESET, GUEST_PANICKED).
func cause(e qmp.Event) ExitReason {
	switch e.Event {
	case "GUEST_PANICKED":
		return GuestPanic
	case "RESET":
		if fromGuest, _ := e.Data["guest"].(bool); fromGuest {
			return GuestReset
		}
	case "SHUTDOWN":
		switch reason, _ := e.Data["reason"].(string); reason {
		case "guest-shutdown":
			return GuestShutdown
		case "guest-reset":
			return GuestReset
		case "guest-panic":
			return GuestPanic
		case "host-qmp-quit":
			return Stopped
		case "host-signal":
			return Killed
		default:
			return InternalError
		}
	}
	return 0
}

// explain completes an exit whose process is done and whose console is read.
func (r *run) explain(exit Exit) Exit {
	signal, words := r.proc.ending()
	why, panicked := r.console.words.panicked()
	switch {
	case exit.Reason == 0 && signal != 0:
		return Exit{Killed, words}
	case exit.Reason == 0:
		return Exit{InternalError, words}
	case exit.Reason == GuestPanic, exit.Reason == GuestReset && panicked:
		return Exit{GuestPanic, why}
	case exit.Reason == Killed, exit.Reason == InternalError:
		exit.Detail = r.proc.stderr.complaint()
	}
	return exit
}
