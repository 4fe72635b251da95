package steps

import (
	"context"
	"regexp"
	"time"

	"github.com/nesim/nesim/scenarios"
	"github.com/nesim/nesim/scenarios/trace"
)

var seenStep = kind[Seen]("seen", "look for events in the trace so far")

// Seen looks for entries of the trace, except those of the runner itself, which quote the patterns.
type Seen struct {
	Regexp string        `yaml:"regexp" doc:"matches an entry's lane, kind and text: \"device command: SLOT_INFO\"" required:"true"`
	Count  *int          `yaml:"count" doc:"how often (default: at least once)"`
	Then   []string      `yaml:"then" doc:"entries after the first, in this order"`
	Within time.Duration `yaml:"within" doc:"the longest time from the first to the last of these"`
	After  time.Duration `yaml:"after" doc:"the shortest time from the first to the last of these"`
}

// Check implements [scenarios.Action].
func (s *Seen) Check(c *scenarios.Checker) {
	c.Regexp(s.Regexp)
	for _, pattern := range s.Then {
		c.Regexp(pattern)
	}
}

// line is an entry of the trace as patterns see it.
func line(e trace.Entry) string { return e.Lane + " " + string(e.Kind) + ": " + e.Text }

// Do implements [Action].
func (s *Seen) Do(_ context.Context, w *World, _ Branch) error {
	first, err := regexp.Compile(s.Regexp)
	if err != nil {
		return err
	}
	var entries []trace.Entry
	count, begin := 0, -1
	for _, e := range w.Trace.Entries() {
		if e.Kind == trace.Step {
			continue
		}
		if err := w.stop(); err != nil {
			return err
		}
		if first.MatchString(line(e)) {
			if count++; begin < 0 {
				begin = len(entries)
			}
		}
		entries = append(entries, e)
	}
	switch {
	case s.Count != nil && *s.Count != count:
		return mismatch("%q was seen %d times, not %d", s.Regexp, count, *s.Count)
	case count == 0 && s.Count == nil:
		return mismatch("%q was not seen", s.Regexp)
	case count == 0:
		return nil
	}
	return s.follow(entries[begin:])
}

// follow looks for what comes after the first entry, in order, and how long that takes.
func (s *Seen) follow(entries []trace.Entry) error {
	at := 0
	for _, pattern := range s.Then {
		next, err := regexp.Compile(pattern)
		if err != nil {
			return err
		}
		for at++; at < len(entries) && !next.MatchString(line(entries[at])); at++ {
		}
		if at >= len(entries) {
			return mismatch("%q was not seen after %q", pattern, s.Regexp)
		}
	}
	took := entries[at].At - entries[0].At
	switch {
	case s.Within > 0 && took > s.Within:
		return mismatch("it took %v, more than %v", took, s.Within)
	case took < s.After:
		return mismatch("it took %v, less than %v", took, s.After)
	}
	return nil
}
