package shard

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/dustin/go-humanize/english"

	"github.com/nesim/nesim/scenarios/trace"
)

// Of returns the shard that a run was of.
func Of(run *trace.Run) (Shard, error) {
	if run.Shard == "" {
		return Shard{}, errors.New("it is not of a shard")
	}
	return Parse(run.Shard)
}

// Merge puts the runs of all shards, in any order, together into the run that one machine would have made: its results are
// in the order of the list that was split. It refuses shards that are missing or given twice, that differ in their number,
// nesim's version, engine or seed, a scenario that was run twice, and shards that are not of one list.
func Merge(runs []*trace.Run) (*trace.Run, error) {
	if len(runs) == 0 {
		return nil, errors.New("there are no shards to merge")
	}
	parts, err := arrange(runs)
	if err != nil {
		return nil, err
	}
	first := parts[0]
	all := &trace.Run{Version: first.Version, Engine: first.Engine, Seed: first.Seed, Started: first.Started}
	total := 0
	for _, part := range parts {
		total += len(part.Results)
		if part.Started.Before(all.Started) {
			all.Started = part.Started
		}
	}
	for i, part := range parts {
		if want := (Shard{i + 1, len(parts)}).size(total); len(part.Results) != want {
			return nil, fmt.Errorf("shard %s has %s of %d, where %d are due: the shards were given different scenarios",
				part.Shard, english.Plural(len(part.Results), "result", ""), total, want)
		}
	}
	for i := range total {
		all.Results = append(all.Results, parts[i%len(parts)].Results[i/len(parts)])
	}
	if err := unlike(all.Results); err != nil {
		return nil, err
	}
	return all, nil
}

// arrange puts the runs in the order of their shards: as many as there are, each once, and all alike.
func arrange(runs []*trace.Run) (parts []*trace.Run, err error) {
	for n, run := range runs {
		s, err := Of(run)
		if err != nil {
			return nil, fmt.Errorf("run %d of %d: %w", n+1, len(runs), err)
		}
		if parts == nil {
			parts = make([]*trace.Run, s.Count)
		}
		switch {
		case len(parts) != s.Count:
			return nil, fmt.Errorf("shards %s and %s are of different numbers of shards", runs[0].Shard, s)
		case parts[s.Index-1] != nil:
			return nil, fmt.Errorf("shard %v is given twice", s)
		}
		if err := alike(runs[0], run); err != nil {
			return nil, err
		}
		parts[s.Index-1] = run
	}
	return parts, complete(parts)
}

func alike(a, b *trace.Run) error {
	for _, field := range []struct{ name, a, b string }{
		{"version", a.Version, b.Version},
		{"engine", a.Engine, b.Engine},
		{"seed", seed(a), seed(b)},
	} {
		if field.a != field.b {
			return fmt.Errorf("shards %s and %s differ in their %s: %.40q and %.40q", a.Shard, b.Shard, field.name, field.a, field.b)
		}
	}
	return nil
}

func seed(run *trace.Run) string {
	if run.Seed == 0 {
		return "the scenarios' own"
	}
	return fmt.Sprint(run.Seed)
}

func complete(parts []*trace.Run) error {
	var missing []string
	for i, part := range parts {
		if part == nil {
			missing = append(missing, Shard{i + 1, len(parts)}.String())
		}
	}
	switch n := len(missing); {
	case n == 0:
		return nil
	case n == 1:
		return fmt.Errorf("shard %s is missing", missing[0])
	case n <= 5:
		return fmt.Errorf("shards %s are missing", strings.Join(missing, ", "))
	default:
		return fmt.Errorf("shards %s and %d more are missing", strings.Join(missing[:5], ", "), n-5)
	}
}

// unlike refuses results of which two are of one scenario.
func unlike(results []trace.Result) error {
	sorted := make([]*trace.Result, len(results))
	for i := range results {
		sorted[i] = &results[i]
	}
	order := func(a, b *trace.Result) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Name, b.Name))
	}
	slices.SortFunc(sorted, order)
	for i := 1; i < len(sorted); i++ {
		if r := sorted[i]; order(sorted[i-1], r) == 0 {
			return fmt.Errorf("scenario %.80q (%.80q line %d) is in there twice", r.Name, r.File, r.Line)
		}
	}
	return nil
}
