package run

import (
	"context"
	"errors"
	"os"
	"regexp"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/scenarios"
	"github.com/nesim/nesim/scenarios/trace"
)

// do does what a step says.
func (p *player) do(ctx context.Context, b branch, s *scenarios.Step) error {
	switch {
	case s.Build != nil:
		return p.build(ctx, b, s.Build)
	case s.Create != nil:
		return p.create(b, s.Create)
	case s.AddMemory != nil:
		return p.addMemory(ctx, b, s.AddMemory)
	case s.AddCPU != nil:
		return p.addCPU(b, s.AddCPU)
	case s.ImageInfo != nil:
		return p.imageInfo(b, s.ImageInfo)
	case s.Start != nil:
		return p.start(b, s.Start)
	case s.Heartbeat != nil:
		return p.heartbeat(ctx, b, s.Heartbeat)
	case s.Run != nil:
		return p.run(ctx, b, s.Run)
	case s.Ioctl != nil:
		return p.ioctl(b, s.Ioctl)
	case s.PCI != nil:
		return p.pci(ctx, b, s.PCI)
	case s.Terminate != nil:
		return p.terminate(ctx, b, s.Terminate.Enclave)
	case s.Exit != nil:
		return p.exitProcess(b, s.Exit.Process)
	case s.CPUPool != nil:
		return p.call(b, "parent", "ne_cpus "+s.CPUPool.CPUs, func() (string, error) { return "", p.stage.Driver.SetCPUs(s.CPUPool.CPUs) })
	case s.Restart != nil:
		return p.restart(ctx, b)
	case s.Fault != nil:
		p.stage.Faults.Add(s.Fault.Arm())
		return nil
	case s.Sleep != nil:
		return sleep(ctx, s.Sleep.For.Std())
	case s.Parallel != nil:
		return p.parallel(ctx, s.Parallel)
	}
	return p.look(ctx, b, s)
}

// look does the steps that talk to an enclave, or look at what can be seen of it.
func (p *player) look(ctx context.Context, b branch, s *scenarios.Step) error {
	switch {
	case s.Dial != nil:
		return p.dial(ctx, b, s.Dial, s.ExpectError == "")
	case s.Listen != nil:
		return p.listen(s.Listen)
	case s.Accept != nil:
		return p.accept(ctx, s.Accept)
	case s.Send != nil:
		return p.send(ctx, s.Send)
	case s.Expect != nil:
		return p.receive(ctx, s.Expect)
	case s.Close != nil:
		return p.close(b, s.Close)
	case s.Call != nil:
		return p.hello(ctx, b, s.Call)
	case s.Attest != nil:
		return p.attest(ctx, b, s.Attest)
	case s.Console != nil:
		return p.console(ctx, s.Console)
	case s.Poll != nil:
		return p.poll(ctx, b, s.Poll)
	case s.Slot != nil:
		return p.slot(ctx, b, s.Slot)
	case s.Ended != nil:
		return p.ended(ctx, s.Ended)
	case s.Signal != nil:
		return p.signal(b, s.Signal)
	case s.Seen != nil:
		return p.seen(s.Seen)
	case s.Exec != nil:
		return p.exec(ctx, b, s.Exec)
	}
	return errors.New("this step does nothing")
}

func (p *player) restart(ctx context.Context, b branch) (err error) {
	p.alone(b, func() { err = p.stage.Restart(ctx) })
	return err
}

func (p *player) console(ctx context.Context, c *scenarios.ConsoleExpect) error {
	e, err := p.enclave(c.Enclave)
	if err != nil {
		return err
	}
	want, err := regexp.Compile(c.Regexp)
	if err != nil {
		return err
	}
	text, err := p.stage.Console(ctx, e.slot, want.MatchString)
	if err != nil {
		return unlike("the console does not show %q; it ends with %.200q", c.Regexp, last(text, 200))
	}
	return nil
}

func last(text string, n int) string { return text[max(0, len(text)-n):] }

// poll waits for the descriptor to hang up, or sees that it does not.
func (p *player) poll(ctx context.Context, b branch, w *scenarios.Poll) error {
	e, err := p.enclave(w.Enclave)
	if err != nil {
		return err
	}
	if w.Expect == "none" {
		ctx, cancel := context.WithTimeout(ctx, w.Within.Std())
		defer cancel()
		select {
		case <-e.file.Done():
		case <-ctx.Done():
		}
		if got := e.file.Poll(); got != 0 {
			return unlike("poll gives %#x: %v", got, e.file.Err())
		}
		return nil
	}
	if w.Within > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, w.Within.Std())
		defer cancel()
	}
	select {
	case <-e.file.Done():
	case <-ctx.Done():
		return unlike("no hang-up came")
	}
	if got := e.file.Poll(); got != unix.POLLHUP {
		return unlike("poll gives %#x, not POLLHUP: %v", got, e.file.Err())
	}
	p.note(b, e.name, trace.Ioctl, "poll = POLLHUP: "+e.file.Err().Error())
	return nil
}

// slotWait is how long a slot has to become what is expected.
const slotWait = 5 * time.Second

func (p *player) slot(ctx context.Context, b branch, w *scenarios.Slot) error {
	e, err := p.enclave(w.Enclave)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, slotWait)
	defer cancel()
	return p.until(ctx, b, func() error { return p.compareSlot(e, w) })
}

func (p *player) compareSlot(e *enclave, w *scenarios.Slot) error {
	got, there := p.stage.Hypervisor.Slot(e.slot)
	state := "freed"
	if there {
		state = stateName(got.State)
	}
	switch {
	case w.State != "" && w.State != state:
		return unlike("its state is %s, not %s", state, w.State)
	case w.Memory != nil && uint64(*w.Memory) != got.MemSize:
		return unlike("it has %d KiB of memory, not %d", got.MemSize>>10, *w.Memory>>10)
	case w.Regions != nil && *w.Regions != got.MemRegions:
		return unlike("it has %d regions, not %d", got.MemRegions, *w.Regions)
	case w.CPUs != nil && *w.CPUs != got.NrVCPUs:
		return unlike("it has %d CPUs, not %d", got.NrVCPUs, *w.CPUs)
	case w.CID != nil && *w.CID != got.EnclaveCID:
		return unlike("its CID is %d, not %d", got.EnclaveCID, *w.CID)
	}
	return nil
}

func (p *player) ended(ctx context.Context, w *scenarios.Ended) error {
	e, err := p.enclave(w.Enclave)
	if err != nil {
		return err
	}
	exit, err := p.stage.Exit(ctx, e.slot)
	if err != nil {
		return unlike("it has not ended")
	}
	switch {
	case w.Reason != "" && w.Reason != exit.Reason.String():
		return unlike("it ended by %v, not by %s", exit, w.Reason)
	case w.Code != nil && (exit.Code == nil || *w.Code != *exit.Code):
		return unlike("it ended by %v, not with code %d", exit, *w.Code)
	}
	return nil
}

var signals = map[string]os.Signal{"kill": syscall.SIGKILL, "stop": syscall.SIGSTOP, "cont": syscall.SIGCONT, "oom": syscall.SIGKILL}

func (p *player) signal(b branch, s *scenarios.Signal) error {
	e, err := p.enclave(s.Enclave)
	if err != nil {
		return err
	}
	if s.Signal == "oom" {
		p.note(b, e.name, trace.Fault, "the host is out of memory, and its kernel picks this VMM")
	}
	return p.stage.Kill(e.slot, signals[s.Signal])
}

// line is an entry of the trace as patterns see it.
func line(e trace.Entry) string { return e.Lane + " " + string(e.Kind) + ": " + e.Text }

// seen looks for entries of the trace, but those of the runner itself: a step's words would be found for what they say.
func (p *player) seen(w *scenarios.Seen) error {
	first, err := regexp.Compile(w.Regexp)
	if err != nil {
		return err
	}
	var entries []trace.Entry
	count, begin := 0, -1
	for _, e := range p.trace.Entries() {
		if e.Kind == trace.Step {
			continue
		}
		if first.MatchString(line(e)) {
			if count++; begin < 0 {
				begin = len(entries)
			}
		}
		entries = append(entries, e)
	}
	switch {
	case w.Count != nil && *w.Count != count:
		return unlike("%q was seen %d times, not %d", w.Regexp, count, *w.Count)
	case count == 0 && w.Count == nil:
		return unlike("%q was not seen", w.Regexp)
	case count == 0:
		return nil
	}
	return follow(entries[begin:], w)
}

// follow looks for what comes after the first entry, in order, and how long that takes.
func follow(entries []trace.Entry, w *scenarios.Seen) error {
	at := 0
	for _, pattern := range w.Then {
		next, err := regexp.Compile(pattern)
		if err != nil {
			return err
		}
		for at++; at < len(entries) && !next.MatchString(line(entries[at])); at++ {
		}
		if at >= len(entries) {
			return unlike("%q was not seen after %q", pattern, w.Regexp)
		}
	}
	took := entries[at].At - entries[0].At
	switch {
	case w.Within > 0 && took > w.Within.Std():
		return unlike("it took %v, more than %v", took, w.Within.Std())
	case took < w.After.Std():
		return unlike("it took %v, less than %v", took, w.After.Std())
	}
	return nil
}
