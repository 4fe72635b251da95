package run

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/scenarios"
	"github.com/nesim/nesim/scenarios/stage"
	"github.com/nesim/nesim/scenarios/steps"
	"github.com/nesim/nesim/scenarios/trace"
	"github.com/nesim/nesim/sim/nedriver"
)

// player runs one scenario.
type player struct {
	world   *steps.World
	numbers map[*scenarios.Step]int

	mu      sync.Mutex
	results []trace.StepResult
}

// play sets the stage, takes the steps, and clears the stage. stop is called now and then: its error ends the run.
func play(ctx context.Context, stop func() error, s *scenarios.Scenario, r *trace.Result, o Options) {
	events := new(trace.Trace)
	set, err := stage.New(ctx, config(s, events, r, o.crowded))
	if err != nil {
		r.Status, r.Error = trace.Broken, oneLine(fmt.Errorf("set the stage: %w", err))
		return
	}
	for i := range s.Faults {
		set.Faults.Add(s.Faults[i].Fault)
	}
	p := &player{world: steps.New(set, events, s.File, stop), numbers: number(s), results: r.Steps}
	limit := cmp.Or(s.Timeout, wholeLimit)
	within, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the scenario exceeded its timeout of %v", limit))
	err = p.steps(within, steps.Branch{Name: "main"}, s.Steps)
	cancel()
	r.Status = trace.Passed
	if err != nil {
		r.Status, r.Error = trace.Failed, oneLine(err)
	}
	if err := events.Err(); err != nil && r.Status == trace.Passed {
		r.Status, r.Error = trace.Failed, oneLine(err)
	}
	if err := p.clear(s.Leftovers); err != nil && r.Status == trace.Passed {
		r.Status, r.Error = trace.Failed, oneLine(fmt.Errorf("afterwards: %w", err))
	}
	r.Faults = faults(s, r, set)
	if idle := r.Idle(); len(idle) > 0 && r.Status == trace.Passed && (o.Strict || s.Strict) {
		r.Status, r.Error = trace.Failed, fmt.Sprintf("the fault %s (%s:%d) never struck", idle[0].Name, idle[0].File, idle[0].Line)
	}
	r.Entries, r.VMMMemory = events.Entries(), p.world.VMMMemory()
}

// faults lists how often each fault has struck.
func faults(s *scenarios.Scenario, r *trace.Result, set *stage.Stage) (list []trace.FaultResult) {
	for i, t := range set.Faults.Tally() {
		f := trace.FaultResult{Name: t.Fault.Name, Struck: t.Struck}
		if t.Step == 0 {
			f.File, f.Line = s.Faults[i].File, s.Faults[i].Line // armed before all others
		} else {
			step := r.Steps[t.Step-1]
			f.File, f.Line = step.File, step.Line
		}
		list = append(list, f)
	}
	return list
}

// config is the stage that a scenario needs.
func config(s *scenarios.Scenario, t *trace.Trace, r *trace.Result, crowded bool) stage.Config {
	i := &s.Instance
	c := stage.Config{
		Engine: stage.Engine(r.Engine), Seed: r.Seed, Trace: t, CPUPool: i.Pool, Slots: i.Slots, NSM: i.NSM, Crowded: crowded,
		Topology: nedriver.Topology{CPUs: i.CPUs, ThreadsPerCore: i.ThreadsPerCore, NUMANodes: i.NUMANodes},
	}
	if i.HugePages > 0 {
		c.HugePages = []nedriver.HugePages{{PageSize: nedriver.PageSize2M, Pages: i.HugePages}}
	}
	return c
}

// steps takes steps in order until one fails.
func (p *player) steps(ctx context.Context, b steps.Branch, list []scenarios.Step) error {
	for i := range list {
		if err := p.step(ctx, b, &list[i]); err != nil {
			return err
		}
	}
	return nil
}

// step takes one step. The error names it.
func (p *player) step(ctx context.Context, b steps.Branch, s *scenarios.Step) error {
	p.world.Stage.Turn(b.Number)
	if err := errors.Join(p.world.Stopped(), ctx.Err()); err != nil {
		return cmp.Or(context.Cause(ctx), err)
	}
	number := p.numbers[s]
	name := p.results[number-1].Name
	b.Step, b.Fails = number, s.ExpectError != 0
	p.world.Stage.Step(number)
	p.world.Note(b, b.Name, trace.Step, name)
	within, cancel := limited(ctx, s)
	defer cancel()
	began := p.world.Stage.Now()
	err := expected(s, p.do(within, b, s))
	if err != nil && within.Err() != nil && ctx.Err() == nil && !errors.Is(err, context.Cause(within)) {
		err = fmt.Errorf("%w: %w", context.Cause(within), err)
	}
	p.record(number, began, err, ctx.Err() != nil && errors.Is(context.Cause(ctx), errOther))
	if err != nil {
		return fmt.Errorf("step %d (%s): %w", number, name, err)
	}
	return nil
}

// do takes a step's action. Branches are the runner's own: they are made of steps.
func (p *player) do(ctx context.Context, b steps.Branch, s *scenarios.Step) error {
	switch action := s.Action.(type) {
	case *scenarios.Parallel:
		return p.parallel(ctx, *action)
	case steps.Action:
		return action.Do(ctx, p.world, b)
	}
	return fmt.Errorf("steps of kind %s cannot be run", s.Kind.Key)
}

// limited gives a step its time.
func limited(ctx context.Context, s *scenarios.Step) (context.Context, context.CancelFunc) {
	if s.Timeout == 0 && s.Kind.Unlimited {
		return context.WithCancel(ctx)
	}
	limit := cmp.Or(s.Timeout, stepLimit)
	return context.WithTimeoutCause(ctx, limit, fmt.Errorf("the step exceeded its timeout of %v", limit))
}

// record writes down how a step went.
func (p *player) record(number int, began time.Duration, err error, cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := &p.results[number-1]
	r.Start, r.Elapsed, r.Status = began, p.world.Stage.Now()-began, trace.Passed
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
func (p *player) parallel(ctx context.Context, branches scenarios.Parallel) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	var once sync.Once
	var first error
	for name, list := range branches {
		if len(list) == 0 {
			continue
		}
		all.Go(func() {
			if err := p.steps(ctx, steps.Branch{Name: name, Number: p.numbers[&list[0]]}, list); err != nil {
				once.Do(func() { first = err; cancel(errOther) })
			}
		})
	}
	all.Wait()
	return first
}

// expected compares the outcome of a step with the error that it must fail with, if any.
func expected(s *scenarios.Step, err error) error {
	var m steps.Mismatch
	if s.ExpectError == 0 || errors.As(err, &m) {
		return err
	}
	got := codeOf(err)
	switch {
	case err == nil:
		return fmt.Errorf("no error, where %s is expected", s.ExpectError)
	case got != s.ExpectError:
		return fmt.Errorf("%s, where %s is expected: %w", got, s.ExpectError, err)
	}
	return nil
}

// codeOf is the code of a step's error; that of a timeout is ETIMEDOUT.
func codeOf(err error) nedriver.ErrorCode {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return nedriver.ErrorCode(unix.ETIMEDOUT)
	}
	return nedriver.ErrorCode(nedriver.Code(err))
}

// clear ends what the scenario has left open, and reports what is left over then. If the scenario expects that something
// is, nothing left over is the error.
func (p *player) clear(leftovers bool) error {
	err := p.world.Close()
	switch {
	case !leftovers:
		return err
	case err == nil:
		return errors.New("nothing is left over, where the scenario expects it")
	}
	return nil
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
