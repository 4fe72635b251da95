package scenarios

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// Language is the kinds of steps that files may have, in the order of the manual. The steps that hold other steps,
// parallel and include, are part of every language.
type Language []StepKind

// StepKind is a kind of step.
type StepKind struct {
	Key string // in files
	Doc string // what the step does, for the schema and the manual
	// Unlimited steps take as long as their parameters say, and have no other time limit unless the file sets one.
	Unlimited bool
	New       func() Action // returns an action without parameters
}

// Action is what a step does: a pointer to a structure whose tags name and describe the step's parameters.
type Action interface {
	// Check declares what the step uses and makes, and reports what no single parameter shows to be wrong.
	Check(c *Checker)
}

// Parallel runs branches of steps at the same time, by their names.
type Parallel map[string][]Step

// parallel is the kind of step that a Parallel is.
var parallel = StepKind{
	Key: "parallel", Doc: "run branches of steps at the same time, by their names", Unlimited: true,
	New: func() Action { return new(Parallel) },
}

// Names are the branches' names in the order of the file.
func (p *Parallel) Names() []string {
	line := func(name string) int {
		if len((*p)[name]) == 0 {
			return 0
		}
		return (*p)[name][0].Line
	}
	return slices.SortedFunc(maps.Keys(*p), func(a, b string) int {
		return cmp.Or(cmp.Compare(line(a), line(b)), strings.Compare(a, b))
	})
}

// Check lets a branch use what another one makes: it may wait for it.
func (p *Parallel) Check(c *Checker) {
	names := p.Names()
	if !c.declares {
		if c.branches += len(names); c.branches > maxBranches {
			c.Fail("the scenario has more than %d branches of parallel steps", maxBranches)
			return
		}
	}
	c.declare(func() {
		for _, name := range names {
			c.steps((*p)[name])
		}
	})
	for _, name := range names {
		c.steps((*p)[name])
	}
}

// kinds are all kinds of steps.
func (l Language) kinds() []*StepKind {
	var all []*StepKind
	for i := range l {
		all = append(all, &l[i])
	}
	return append(all, &parallel)
}

// kind finds the kind with a key, or nil.
func (l Language) kind(key string) *StepKind {
	for i := range l {
		if l[i].Key == key {
			return &l[i]
		}
	}
	if key == parallel.Key {
		return &parallel
	}
	return nil
}
