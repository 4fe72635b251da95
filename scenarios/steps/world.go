package steps

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/nesim/nesim/scenarios/stage"
	"github.com/nesim/nesim/scenarios/trace"
	"github.com/nesim/nesim/sim/nedriver"
)

// World is what the steps of one run act on.
type World struct {
	Stage *stage.Stage
	Trace *trace.Trace

	stop func() error // its error ends the run

	file string // the scenario's; its folder holds the files that it names

	mu        sync.Mutex
	processes map[string]*process
	enclaves  map[string]*enclave
	images    map[string]*os.File
	memories  map[string]*nedriver.Mapping
	conns     map[string]*conn
	listeners map[string]net.Listener
	slots     map[string]uint64 // of raw commands
	vmmMemory uint64            // bytes
}

// New makes the world of a scenario from a file, on a stage that has been set. stop is called now and then, and its error
// ends what is under way: a scripted scenario cannot wait for a context from outside its virtual time.
func New(s *stage.Stage, t *trace.Trace, file string, stop func() error) *World {
	return &World{
		Stage: s, Trace: t, file: file, stop: stop,
		processes: make(map[string]*process), enclaves: make(map[string]*enclave), images: make(map[string]*os.File),
		memories: make(map[string]*nedriver.Mapping), conns: make(map[string]*conn),
		listeners: make(map[string]net.Listener), slots: make(map[string]uint64),
	}
}

// Branch is a sequence of steps, and where it stands.
type Branch struct {
	Name   string
	Number int  // its turn among branches that could go on at the same time
	Step   int  // the number of the step under way
	Fails  bool // that step is expected to fail
}

// Mismatch is an observation that differs from what the file says, as opposed to an error of the step's action.
type Mismatch struct{ text string }

func (m Mismatch) Error() string { return m.text }

func mismatch(format string, args ...any) error { return Mismatch{fmt.Sprintf(format, args...)} }

// Note adds an event of the branch's step to the trace.
func (w *World) Note(b Branch, lane string, kind trace.Kind, text string) {
	w.Trace.Add(lane, kind, b.Step, text)
}

// Stopped is why nothing more is done: the run was stopped, or its trace is full.
func (w *World) Stopped() error { return cmp.Or(w.stop(), w.Trace.Err()) }

// turn waits for the branch's turn, from which on the stage attributes events to the branch's step.
func (w *World) turn(b Branch) {
	w.Stage.Turn(b.Number)
	w.Stage.Step(b.Step)
}

// alone does something in the branch's turn, whose events the stage attributes to the branch's step.
func (w *World) alone(b Branch, do func()) {
	w.Stage.Alone(b.Number, func() {
		w.Stage.Step(b.Step)
		do()
	})
}

// call calls the driver in the branch's turn, and adds the call and its result to the trace.
func (w *World) call(b Branch, lane, what string, do func() (string, error)) (err error) {
	w.alone(b, func() {
		var got string
		if got, err = do(); err != nil {
			got = nedriver.ErrorCode(nedriver.Code(err)).String()
		}
		w.Note(b, lane, trace.Ioctl, what+" = "+cmp.Or(got, "0"))
	})
	return err
}

// until waits until something holds, for as long as the step may take.
func (w *World) until(ctx context.Context, b Branch, holds func() error) error {
	for {
		err := holds()
		if err == nil || w.pause(ctx, b) != nil {
			return err
		}
	}
}

// retry is the length of a pause.
const retry = 10 * time.Millisecond

// pause waits a little. Branches that wake at the same instant go on one at a time.
func (w *World) pause(ctx context.Context, b Branch) error {
	if err := sleep(ctx, retry); err != nil {
		return err
	}
	w.turn(b)
	return w.Stopped()
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// VMMMemory is the most that a VMM has taken beside its enclave's RAM, in bytes; 0 on the scripted engine.
func (w *World) VMMMemory() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.vmmMemory
}

// Close ends what the steps have left open, and the stage. The error joins what is left over after that.
func (w *World) Close() error {
	var errs []error
	for _, name := range sorted(w.conns) {
		w.conns[name].Close()
	}
	for _, name := range sorted(w.listeners) {
		w.listeners[name].Close()
	}
	for _, f := range w.images {
		f.Close()
	}
	for _, name := range sorted(w.enclaves) {
		w.enclaves[name].stopListening()
	}
	for _, name := range sorted(w.processes) {
		process := w.processes[name]
		w.Stage.Alone(0, func() { errs = append(errs, process.exit()) })
	}
	if w.Stage.Driver != nil {
		errs = append(errs, w.Stage.Leftovers())
	}
	return errors.Join(append(errs, w.Stage.Close())...)
}

// sorted returns the keys of a map in order.
func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
