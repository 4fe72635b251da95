package run

import (
	"github.com/nesim/nesim/scenarios"
	"github.com/nesim/nesim/scenarios/stage"
	"github.com/nesim/nesim/scenarios/trace"
	"github.com/nesim/nesim/sim/nedriver"
)

// config is the stage that a scenario wants.
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
