package run

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nesim/nesim/scenarios"
	"github.com/nesim/nesim/scenarios/trace"
)

// All plays scenarios, so many at a time; parallel 0 is as many as there are processors. The results are in the order of
// the scenarios; done, which may be nil, is called with each as soon as it is there, one at a time.
func All(ctx context.Context, list []*scenarios.Scenario, o Options, parallel int, done func(trace.Result)) trace.Run {
	if parallel <= 0 {
		parallel = runtime.GOMAXPROCS(0)
	}
	parallel = min(parallel, len(list))
	o.crowded = parallel > 1
	all := trace.Run{Started: time.Now().Round(0), Results: make([]trace.Result, len(list))}
	next := make(chan int)
	var players sync.WaitGroup
	var mu sync.Mutex
	var entries atomic.Int64
	for range parallel {
		players.Go(func() {
			for i := range next {
				all.Results[i] = Run(ctx, list[i], o)
				keepEntries(&all.Results[i], &entries)
				if done != nil {
					mu.Lock()
					done(all.Results[i])
					mu.Unlock()
				}
			}
		})
	}
	for i := range list {
		next <- i
	}
	close(next)
	players.Wait()
	return all
}

// maxEntries bounds the entries of all traces of a run, which are kept for its reports: some 150 bytes each.
const maxEntries = 4_000_000

// keepEntries counts a result's entries, and drops them where there are too many already.
func keepEntries(r *trace.Result, entries *atomic.Int64) {
	if entries.Add(int64(len(r.Entries))) <= maxEntries {
		return
	}
	r.Entries = nil
	if r.Status == trace.Passed {
		r.Status, r.Error = trace.Broken, fmt.Sprintf("the traces of this run come to more than %d entries: run fewer scenarios at a time, or in shards", maxEntries)
	}
}

// Choose keeps the scenarios that have one of the tags; no tags keep all.
func Choose(list []*scenarios.Scenario, tags []string) []*scenarios.Scenario {
	if len(tags) == 0 {
		return list
	}
	return slices.DeleteFunc(slices.Clone(list), func(s *scenarios.Scenario) bool {
		return !slices.ContainsFunc(s.Tags, func(tag string) bool { return slices.Contains(tags, tag) })
	})
}
