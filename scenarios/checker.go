package scenarios

import (
	"fmt"
	"slices"

	"github.com/nesim/nesim/internal/suggest"
)

// Checker collects what is wrong with the steps of a scenario, which it visits in the order of the file.
type Checker struct {
	scenario *Scenario
	step     *Step // under check
	known    map[named]bool
	declares bool // only what steps make counts
	budget   *budget
	branches int // of parallel steps
	errs     []error
}

// Noun is a kind of thing that steps give names, as messages call it.
type Noun string

// The nouns.
const (
	Enclave  Noun = "an enclave"
	Process  Noun = "a process"
	Endpoint Noun = "a connection or a listener"
	Memory   Noun = "memory"
	Slot     Noun = "a slot"
	Image    Noun = "an image"
)

// named is something that a step gives a name.
type named struct {
	noun Noun
	name string
}

// MainProcess is the name of the parent's process that steps use by default.
const MainProcess = "main"

// check finds what no single value shows: steps that cannot be.
func check(s *Scenario, left *budget) []error {
	c := &Checker{scenario: s, budget: left, known: map[named]bool{{Process, MainProcess}: true}}
	for i := range s.Faults {
		if err := s.Faults[i].Check(); err != nil {
			c.fail(s.Faults[i].Place, err.Error())
		}
	}
	if len(s.Steps) == 0 {
		c.fail(s.Place, "the scenario has no steps")
	}
	c.steps(s.Steps)
	return c.errs
}

func (c *Checker) steps(steps []Step) {
	for i := range steps {
		if len(c.errs) > maxMistakes {
			return
		}
		c.step = &steps[i]
		if action := steps[i].Action; action != nil {
			action.Check(c)
		}
	}
}

// declare visits steps only for what they make.
func (c *Checker) declare(visit func()) {
	before := c.declares
	c.declares = true
	visit()
	c.declares = before
}

func (c *Checker) fail(at Place, text string) {
	if len(c.errs) == maxMistakes {
		text = fmt.Sprintf("more than %d mistakes: the rest is not checked", maxMistakes)
	}
	if !c.declares && len(c.errs) <= maxMistakes {
		c.errs = append(c.errs, &Error{at.File, at.Line, at.Column, text})
	}
}

// Fail reports that the step is wrong.
func (c *Checker) Fail(format string, args ...any) {
	c.fail(c.step.Place, fmt.Sprintf(format, args...))
}

// Makes declares that the step gives something a name; an empty name is none.
func (c *Checker) Makes(noun Noun, name string) { c.known[named{noun, name}] = true }

// Uses reports a name that no earlier step has made; an empty name is none.
func (c *Checker) Uses(noun Noun, name string) {
	if name == "" || c.declares || c.known[named{noun, name}] {
		return
	}
	var names []string
	for known := range c.known {
		if known.noun == noun {
			names = append(names, known.name)
		}
	}
	slices.Sort(names)
	c.Fail("no earlier step makes %s %q%s", noun, name, didYouMean(name, names))
}

// Regexp reports an invalid regular expression.
func (c *Checker) Regexp(pattern string) {
	if c.declares {
		return
	}
	if err := c.budget.pattern(pattern); err != nil {
		c.Fail("%v", err)
	}
}

// OneOf reports unless exactly one of several keys is set.
func (c *Checker) OneOf(keys string, set ...bool) {
	n := 0
	for _, is := range set {
		if is {
			n++
		}
	}
	if n != 1 {
		c.Fail("give one of %s, not %d", keys, n)
	}
}

// Only reports a scenario that can run on another engine than this one, for the parameter or step called what.
func (c *Checker) Only(engine, what string) {
	for _, other := range engines {
		if other != engine && c.scenario.On(other) {
			c.Fail("%s: give the scenario engines: [%s]", what, engine)
		}
	}
}

// didYouMean suggests the word that was meant, if one is near.
func didYouMean(word string, known []string) string {
	if near := suggest.Nearest(word, known); near != "" {
		return fmt.Sprintf(": did you mean %q?", near)
	}
	return ""
}
