package report

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/nesim/nesim/scenarios/trace"
)

// Live reports scenarios as they end.
type Live struct {
	lines
	style Style
}

// Style is how a Live tells.
type Style struct {
	Colours bool // SGR codes of ECMA-48
	Brief   bool // the steps of those scenarios only that failed
}

// Terminal writes for people to w.
func Terminal(w io.Writer, style Style) *Live {
	return &Live{lines{w: w}, style}
}

// Result reports how a scenario went: on a line, and its steps on a line each, with the trace around the failing one.
func (t *Live) Result(r *trace.Result) error {
	t.printf("%s %s %s\n", t.status(r.Status), printable(r.Name),
		t.paint("2", fmt.Sprintf("(%s, seed %d, %v)", place(r.File, r.Line), r.Seed, round(r.Elapsed))))
	switch r.Status {
	case trace.Skipped:
		if r.Error != "" {
			t.printf("         %s\n", printable(r.Error))
		}
	case trace.Failed, trace.Broken:
		t.steps(r)
	case trace.Passed:
		if !t.style.Brief {
			t.steps(r)
		}
	}
	t.faults(r)
	return t.err
}

// faults prints how often each fault struck; one that never did in brief style too.
func (t *Live) faults(r *trace.Result) {
	for i := range r.Faults {
		f := &r.Faults[i]
		switch {
		case f.Struck == 0:
			t.printf("  %s %s\n", t.paint("33", "warning "), struck(f))
		case !t.style.Brief:
			t.printf("  %s %s\n", t.paint("2", "fault   "), struck(f))
		}
	}
}

func (t *Live) steps(r *trace.Result) {
	step := failing(r)
	for i := range r.Steps {
		s := &r.Steps[i]
		t.printf("  %s %s: %s%s\n", t.status(s.Status), place(s.File, s.Line), printable(s.Name), t.took(s))
		if s == step {
			t.printf("           %s\n", t.paint("1;31", reason(r)))
			t.trace(r)
		}
	}
	if step == nil && r.Status != trace.Passed {
		t.printf("           %s\n", t.paint("1;31", reason(r)))
		t.trace(r)
	}
}

// trace shows what was seen around the failing step; what belongs to it is marked.
func (t *Live) trace(r *trace.Result) {
	step := failing(r)
	part, before, after := around(r)
	if before > 0 {
		t.printf("           %s\n", t.paint("2", entries(before, "earlier")))
	}
	for i := range part {
		mark, code := " ", "2"
		if step != nil && part[i].Step == step.Number {
			mark, code = "|", ""
		}
		t.printf("         %s %s\n", mark, t.paint(code, line(&part[i])))
	}
	if after > 0 {
		t.printf("           %s\n", t.paint("2", entries(after, "later")))
	}
}

// Summary reports how all went: what failed once more, and the numbers.
func (t *Live) Summary(run *trace.Run) error {
	if !run.OK() {
		t.printf("\n")
	}
	for i := range run.Results {
		r := &run.Results[i]
		if r.Status == trace.Failed || r.Status == trace.Broken {
			file, n := where(r)
			t.printf("%s %s: %s: %s\n", t.status(r.Status), place(file, n), printable(r.Name), reason(r))
		}
	}
	code := "32"
	if !run.OK() {
		code = "31"
	}
	t.printf("%s\n", t.paint(code, counts(run)))
	if n := run.VMMMemory(); n > 0 {
		t.printf("a VMM took at most %d MiB beside its enclave's RAM\n", n>>20)
	}
	return t.err
}

// took is how long a step took, on the clock of its engine.
func (t *Live) took(s *trace.StepResult) string {
	if s.Status == trace.NotRun {
		return ""
	}
	return t.paint("2", fmt.Sprintf(" (%v)", round(s.Elapsed)))
}

func counts(run *trace.Run) string {
	text := fmt.Sprintf("%d passed, %d failed, %d could not run, %d skipped",
		run.Count(trace.Passed), run.Count(trace.Failed), run.Count(trace.Broken), run.Count(trace.Skipped))
	if run.Shard != "" {
		text += " (shard " + printable(run.Shard) + ")"
	}
	return text
}

func (t *Live) status(s trace.Status) string {
	code := map[trace.Status]string{trace.Passed: "32", trace.Failed: "1;31", trace.Broken: "1;31", trace.Skipped: "33", trace.NotRun: "2"}[s]
	text := printable(string(s))
	return t.paint(code, text) + strings.Repeat(" ", max(0, 8-len(text)))
}

func (t *Live) paint(code, text string) string {
	if !t.style.Colours || code == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// round leaves a duration the digits that people read.
func round(d time.Duration) time.Duration {
	switch {
	case d > time.Minute:
		return d.Round(time.Second)
	case d > time.Second:
		return d.Round(10 * time.Millisecond)
	default:
		return d.Round(100 * time.Microsecond)
	}
}
