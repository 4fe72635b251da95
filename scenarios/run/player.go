package run

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nesim/nesim/scenarios"
	"github.com/nesim/nesim/scenarios/stage"
	"github.com/nesim/nesim/scenarios/trace"
	"github.com/nesim/nesim/sim/nedriver"
)

// player plays one scenario.
type player struct {
	stage *stage.Stage
	stop  func() error
	trace *trace.Trace
	file  string // the scenario's, from whose folder images are

	numbers map[*scenarios.Step]int

	mu        sync.Mutex
	results   []trace.StepResult
	processes map[string]*process
	enclaves  map[string]*enclave
	images    map[string]*os.File
	memories  map[string]*nedriver.Mapping
	conns     map[string]*conn
	listeners map[string]net.Listener
	slots     map[string]uint64 // of raw commands
	vmmMemory uint64            // bytes, see trace.Result
}

// branch is a line of steps, one after the other.
type branch struct {
	name   string
	number int // for its turns
	step   int // under way
}

// play sets the stage, takes the steps, and clears the stage. stop is asked between steps.
func play(ctx context.Context, stop func() error, s *scenarios.Scenario, r *trace.Result, crowded bool) {
	limit := wholeLimit
	if s.Timeout > 0 {
		limit = time.Duration(s.Timeout)
	}
	p := &player{
		stop: stop, trace: new(trace.Trace), file: s.File, results: r.Steps, numbers: number(s),
		processes: make(map[string]*process), enclaves: make(map[string]*enclave), images: make(map[string]*os.File),
		memories: make(map[string]*nedriver.Mapping),
		conns:    make(map[string]*conn), listeners: make(map[string]net.Listener), slots: make(map[string]uint64),
	}
	var err error
	if p.stage, err = stage.New(ctx, config(s, p.trace, r, crowded)); err != nil {
		r.Status, r.Error = trace.Broken, oneLine(fmt.Errorf("set the stage: %w", err))
		return
	}
	for i := range s.Faults {
		p.stage.Faults.Add(s.Faults[i].Arm())
	}
	within, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the scenario's time limit of %v is over", limit))
	err = p.steps(within, branch{name: "main"}, s.Steps)
	cancel()
	r.Status = trace.Passed
	if err != nil {
		r.Status, r.Error = trace.Failed, oneLine(err)
	}
	if err := p.clear(s.Leftovers); err != nil && r.Status == trace.Passed {
		r.Status, r.Error = trace.Failed, oneLine(fmt.Errorf("afterwards: %w", err))
	}
	r.Entries, r.VMMMemory = p.trace.Entries(), p.vmmMemory
}

// note adds to the trace what happens in the branch's step.
func (p *player) note(b branch, lane string, kind trace.Kind, text string) {
	p.trace.Add(lane, kind, b.step, text)
}

// turn waits for the branch's turn, from which on the stage tells what happens with the branch's step.
func (p *player) turn(b branch) {
	p.stage.Turn(b.number)
	p.stage.Step(b.step)
}

// alone does something in the branch's turn, and has the stage tell it with the branch's step.
func (p *player) alone(b branch, do func()) {
	p.stage.Alone(b.number, func() {
		p.stage.Step(b.step)
		do()
	})
}

// steps takes steps one after the other until one fails.
func (p *player) steps(ctx context.Context, b branch, steps []scenarios.Step) error {
	for i := range steps {
		if err := p.step(ctx, b, &steps[i]); err != nil {
			return err
		}
	}
	return nil
}

// step takes one step. The error names it.
func (p *player) step(ctx context.Context, b branch, s *scenarios.Step) error {
	p.stage.Turn(b.number)
	if err := errors.Join(p.stop(), ctx.Err()); err != nil {
		return cmp.Or(context.Cause(ctx), err)
	}
	number := p.numbers[s]
	name := p.results[number-1].Name
	b.step = number
	p.stage.Step(number)
	p.note(b, b.name, trace.Step, name)
	within, cancel := limited(ctx, s)
	defer cancel()
	began := p.stage.Now()
	err := p.expected(s, p.do(within, b, s))
	if err != nil && within.Err() != nil && ctx.Err() == nil && !errors.Is(err, context.Cause(within)) {
		err = fmt.Errorf("%w: %w", context.Cause(within), err)
	}
	p.tell(number, began, err, ctx.Err() != nil && errors.Is(context.Cause(ctx), errOther))
	if err != nil {
		return fmt.Errorf("step %d (%s): %w", number, name, err)
	}
	return nil
}

// limited gives a step its time. What waits for as long as the file says has no other limit.
func limited(ctx context.Context, s *scenarios.Step) (context.Context, context.CancelFunc) {
	limit := stepLimit
	switch {
	case s.Timeout > 0:
		limit = time.Duration(s.Timeout)
	case s.Sleep != nil || s.Parallel != nil || s.Heartbeat != nil || s.Run != nil:
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, limit, fmt.Errorf("its time limit of %v is over", limit))
}

// tell writes down how a step went.
func (p *player) tell(number int, began time.Duration, err error, cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := &p.results[number-1]
	r.Start, r.Elapsed, r.Status = began, p.stage.Now()-began, trace.Passed
	switch {
	case err == nil:
	case cut:
		r.Status, r.Error = trace.NotRun, errOther.Error()
	default:
		r.Status, r.Error = trace.Failed, oneLine(err)
	}
}

var errOther = errors.New("cut short: a step of another branch failed")

// parallel takes the steps of branches at the same time. The first that fails ends the others.
func (p *player) parallel(ctx context.Context, branches map[string][]scenarios.Step) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	var once sync.Once
	var first error
	for name, steps := range branches {
		if len(steps) == 0 {
			continue
		}
		all.Go(func() {
			if err := p.steps(ctx, branch{name: name, number: p.numbers[&steps[0]]}, steps); err != nil {
				once.Do(func() { first = err; cancel(errOther) })
			}
		})
	}
	all.Wait()
	return first
}

// expected holds what a step came to against the error that it must fail with, if any.
func (p *player) expected(s *scenarios.Step, err error) error {
	var m mismatch
	if s.ExpectError == "" || errors.As(err, &m) {
		return err
	}
	want, bad := scenarios.ParseErrno(s.ExpectError)
	switch {
	case bad != nil:
		return bad
	case err == nil:
		return fmt.Errorf("no error, where %s is expected", s.ExpectError)
	case codeOf(err) != want:
		return fmt.Errorf("%s, where %s is expected: %w", scenarios.ErrnoName(codeOf(err)), s.ExpectError, err)
	}
	return nil
}

// mismatch is something else than the file says, as against an error of what the step does.
type mismatch struct{ text string }

func (m mismatch) Error() string { return m.text }

func unlike(format string, args ...any) error { return mismatch{fmt.Sprintf(format, args...)} }

// clear ends all that the scenario has left open, and tells what is left over then. Where the scenario says that something
// is, it must be.
func (p *player) clear(expected bool) error {
	var errs []error
	for _, name := range sorted(p.conns) {
		p.conns[name].Close()
	}
	for _, name := range sorted(p.listeners) {
		p.listeners[name].Close()
	}
	for _, f := range p.images {
		f.Close()
	}
	for _, name := range sorted(p.enclaves) {
		p.enclaves[name].deaf()
	}
	for _, name := range sorted(p.processes) {
		process := p.processes[name]
		p.stage.Alone(0, func() { errs = append(errs, process.exit()) })
	}
	if p.stage.Driver != nil {
		errs = append(errs, p.stage.Leftovers())
	}
	errs = append(errs, p.stage.Close())
	err := errors.Join(errs...)
	switch {
	case !expected:
		return err
	case err == nil:
		return errors.New("nothing is left over, where the scenario expects that")
	}
	return nil
}

// sorted returns the keys of a map in order.
func sorted[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
