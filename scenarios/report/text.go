package report

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/dustin/go-humanize/english"

	"github.com/nesim/nesim/scenarios/trace"
)

// How much of a trace is told with a failing step.
const (
	linesBefore = 4  // of other steps
	linesOf     = 24 // of the step itself: its last ones, as it ends where it fails
	linesAfter  = 4
)

// printable puts text on one line and replaces what could steer a terminal or break a line.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '·'
	}, text)
}

// failing is the step at which a scenario failed, or nil.
func failing(r *trace.Result) *trace.StepResult {
	for i := range r.Steps {
		if s := r.Steps[i].Status; s == trace.Failed || s == trace.Broken {
			return &r.Steps[i]
		}
	}
	return nil
}

// around is the part of a scenario's trace at its failing step, or its end if no step failed, and how many entries
// come before and after it.
func around(r *trace.Result) (part []trace.Entry, before, after int) {
	from, to := len(r.Entries), len(r.Entries)
	if step := failing(r); step != nil {
		from, to = span(r.Entries, step)
	}
	from = max(from, to-linesOf)
	from, to = max(0, from-linesBefore), min(len(r.Entries), to+linesAfter)
	return r.Entries[from:to], from, len(r.Entries) - to
}

// span is where a step's entries are, from its first one to behind its last one; if it has none, where it ended.
func span(entries []trace.Entry, step *trace.StepResult) (from, to int) {
	from = -1
	ended := 0
	for i, e := range entries {
		if e.Step == step.Number {
			if from < 0 {
				from = i
			}
			to = i + 1
		}
		if e.At <= step.Start+step.Elapsed {
			ended = i + 1
		}
	}
	if from < 0 {
		return ended, ended
	}
	return from, to
}

// line is an entry on one line.
func line(e *trace.Entry) string {
	return fmt.Sprintf("%12s  %-9s %-8s  %s", stamp(e.At), printable(string(e.Kind)), printable(e.Lane), printable(e.Text))
}

// stamp is a time of a trace, to the microsecond.
func stamp(d time.Duration) string { return fmt.Sprintf("+%.6fs", d.Seconds()) }

// story tells of a scenario that failed in lines: its steps, and the trace around the failing one.
func story(r *trace.Result) (lines []string) {
	for i := range r.Steps {
		s := &r.Steps[i]
		lines = append(lines, fmt.Sprintf("%-8s %s: %s", printable(string(s.Status)), place(s.File, s.Line), printable(s.Name)))
		if s.Error != "" {
			lines = append(lines, "         "+printable(s.Error))
		}
	}
	for i := range r.Faults {
		lines = append(lines, "fault    "+struck(&r.Faults[i]))
	}
	part, before, after := around(r)
	if len(part) == 0 {
		return lines
	}
	lines = append(lines, "trace:")
	if before > 0 {
		lines = append(lines, "  "+entries(before, "earlier"))
	}
	for i := range part {
		lines = append(lines, "  "+line(&part[i]))
	}
	if after > 0 {
		lines = append(lines, "  "+entries(after, "later"))
	}
	return lines
}

// entries counts the entries of a trace that are left out.
func entries(n int, which string) string {
	return "(" + english.Plural(n, which+" entry", which+" entries") + ")"
}

// struck reports how often a fault struck.
func struck(f *trace.FaultResult) string {
	text := "struck " + english.Plural(f.Struck, "time", "")
	if f.Struck == 0 {
		text = "never struck"
	}
	return fmt.Sprintf("%s: fault %s: %s", place(f.File, f.Line), printable(f.Name), text)
}

// place is a line of a file, as editors and CI systems make links of it.
func place(file string, line int) string { return fmt.Sprintf("%s:%d", printable(file), line) }

// where is the place of a scenario's failing step, or the scenario's own.
func where(r *trace.Result) (file string, line int) {
	if s := failing(r); s != nil && s.File != "" {
		return s.File, s.Line
	}
	return r.File, r.Line
}

// reason is why a scenario did not pass, in one line that is never empty.
func reason(r *trace.Result) string {
	if r.Error != "" {
		return printable(r.Error)
	}
	if s := failing(r); s != nil && s.Error != "" {
		return printable(s.Error)
	}
	return printable(string(r.Status))
}
