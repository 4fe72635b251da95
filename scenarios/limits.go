package scenarios

import (
	"context"
	"fmt"
	"math"
	"regexp/syntax"
	"strings"
	"time"
)

// Limits of a scenario file. A file of a kilobyte can ask for gigabytes, by variables, includes, a matrix or a count, so
// what it comes to is bounded as well as what it has. Each limit is far above what a person writes: the suite's largest
// file has 30 KB, 40 cases and 400 steps.
const (
	maxFile     = 1 << 20 // bytes of a file, and of each that it includes
	maxDepth    = 64      // values in values, such as parallel steps in parallel steps: the stack's depth follows
	maxIncluded = 8       // files one in the other

	// Of all cases of all scenarios of a file, with what they include.
	maxText     = 16 << 20 // bytes: of values with their variables replaced, and of included files
	maxValues   = 500_000  // keys, values and lists; each takes some 150 bytes while it is read
	maxIncludes = 10_000   // each reads a file
	maxSteps    = 50_000   // each takes some 500 bytes, and a line in every report
	maxMistakes = 20       // that are reported: nobody reads more, and each compares a word with all keys

	maxCases    = 1000 // of one matrix
	maxNames    = 64   // of one matrix
	maxBranches = 1000 // of a scenario's parallel steps: each is a goroutine
	maxPattern  = 1000 // instructions of a regular expression: the time that a match takes is this by the text's length

	// The longest time: it is virtual, and Go's clock ends in the year 2262.
	maxDuration = 10 * 365 * 24 * time.Hour
)

// Limits of a scenario that is played.
const (
	// MaxBytes is how many bytes a step may send or receive.
	MaxBytes = 64 << 20
	// MaxConsole is how many bytes the lines of a scripted enclave's console may have together.
	MaxConsole = 16 << 20
	// MaxOutput is how many bytes a program may print in an exec step.
	MaxOutput = 16 << 20
)

// Counts are bounded where they are declared, by max tags.

// budget is what a file may still come to.
type budget struct {
	ctx                 context.Context
	text, values, steps int
	includes, patterns  int
}

func newBudget(ctx context.Context) *budget {
	return &budget{ctx: ctx, text: maxText, values: maxValues, steps: maxSteps, includes: maxIncludes, patterns: 100 * maxPattern}
}

// checkEvery is how many values are read between two looks at the context.
const checkEvery = 1024

// value takes a value and its text from the budget. The error says what there is too much of.
func (b *budget) value(text int) error {
	b.values--
	b.text -= text
	switch {
	case b.values < 0:
		return fmt.Errorf("this file comes to more than %d values, with its matrix and what it includes", maxValues)
	case b.text < 0:
		return fmt.Errorf("this file comes to more than %d MiB of text, with its variables, its matrix and what it includes", maxText>>20)
	case b.values%checkEvery == 0:
		return b.ctx.Err()
	}
	return nil
}

// spent reports whether the file has come to too much.
func (b *budget) spent() bool { return b.values < 0 || b.text < 0 || b.steps < 0 || b.includes < 0 }

// include takes an included file and its text from the budget.
func (b *budget) include(text int) error {
	if b.includes--; b.includes < 0 {
		return fmt.Errorf("this file includes more than %d files, with those of its matrix and of what it includes", maxIncludes)
	}
	return b.value(text)
}

// step takes a step from the budget.
func (b *budget) step() error {
	if b.steps--; b.steps < 0 {
		return fmt.Errorf("this file comes to more than %d steps, with its matrix and what it includes", maxSteps)
	}
	return nil
}

// pattern takes a regular expression from the budget, which it checks.
func (b *budget) pattern(text string) error {
	const longest = 16 << 10 // bytes
	if len(text) > longest {
		return fmt.Errorf("a regular expression of %d bytes: the longest has %d", len(text), longest)
	}
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return fmt.Errorf("invalid regular expression: %s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	n := instructions(parsed)
	if b.patterns -= n; n > maxPattern {
		return fmt.Errorf("the regular expression %.40q comes to some %d instructions: the largest has %d", text, n, maxPattern)
	}
	if b.patterns < 0 {
		return fmt.Errorf("the regular expressions of this file come to more than %d instructions", 100*maxPattern)
	}
	return nil
}

// instructions is about how many a regular expression is compiled to. Repetitions are counted as what they come to.
func instructions(re *syntax.Regexp) int {
	const plenty = math.MaxInt32
	n := 1
	switch re.Op {
	case syntax.OpLiteral:
		n = len(re.Rune)
	case syntax.OpConcat, syntax.OpRepeat:
		n = 0
	}
	for _, sub := range re.Sub {
		n = min(n+instructions(sub), plenty)
	}
	if re.Op == syntax.OpRepeat {
		n = min(n*max(re.Max, re.Min+1), plenty)
	}
	return n
}
