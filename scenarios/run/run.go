// Package run plays scenarios on a stage and reports how they went.
//
// Goroutines: a scenario is played in the caller's, and each branch of a parallel step in one of its own, which the step
// waits for. Locks: player.mu guards the names that branches share; it is a leaf.
package run

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/nesim/nesim/internal/bubble"
	"github.com/nesim/nesim/scenarios"
	"github.com/nesim/nesim/scenarios/stage"
	"github.com/nesim/nesim/scenarios/trace"
)

// Options say how to play.
type Options struct {
	Engine stage.Engine
	Seed   uint64 // 0: the scenario's, or 1

	Strict bool // a scenario fails if one of its faults never strikes, as one that says so itself

	crowded bool // other scenarios are played at the same time
}

// The time limits of what sets none, on the engine's clock.
const (
	wholeLimit = 10 * time.Minute
	stepLimit  = 4 * time.Minute
)

// Run plays a scenario. Whatever becomes of it is in the result. On the scripted engine it takes no time worth speaking of,
// and ctx is looked at between steps, and in those that repeat something.
func Run(ctx context.Context, s *scenarios.Scenario, o Options) trace.Result {
	began := time.Now()
	r := trace.Result{
		Name: s.Name, Description: s.Description, File: s.File, Line: s.Line, Tags: s.Tags, Engine: string(o.Engine),
		Seed: cmp.Or(o.Seed, s.Seed, 1), Steps: plan(s), Started: began.Round(0),
	}
	switch {
	case !s.On(string(o.Engine)):
		r.Status, r.Error = trace.Skipped, fmt.Sprintf("not for the %s engine", o.Engine)
	case ctx.Err() != nil:
		r.Status, r.Error = trace.Skipped, context.Cause(ctx).Error()
	case o.Engine == stage.Scripted:
		// Nothing in a bubble may wait for what is outside.
		if err := bubble.Run(func() { play(context.Background(), ctx.Err, s, &r, o) }); err != nil {
			r.Status, r.Error = trace.Broken, err.Error()
		}
	default:
		play(ctx, ctx.Err, s, &r, o)
	}
	r.Elapsed = time.Since(began)
	return r
}
