package shard

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/scenarios/trace"
)

func TestAShardIsReadAsItIsWritten(t *testing.T) {
	for _, text := range []string{"1/1", "1/4", "4/4", "10000/10000"} {
		s, err := Parse(text)
		require.NoError(t, err)
		require.Equal(t, text, s.String())
	}
	for _, text := range []string{"", "/", "1", "1/", "/1", "0/1", "2/1", "-1/2", "+1/2", "01/2", "1/02", " 1/2", "1/2 ", "1/2/3",
		"1/0", "0/0", "1/10001", "1/99999999999999999999", "a/b", "٣/٤", "1.0/2", "auto"} {
		_, err := Parse(text)
		require.ErrorContains(t, err, "no shard", text)
		require.NotContains(t, err.Error(), "\n")
	}
}

func TestEveryScenarioIsInExactlyOneShard(t *testing.T) {
	for count := 1; count <= 12; count++ {
		for total := range 30 {
			list := make([]int, total)
			for i := range list {
				list[i] = i
			}
			var seen, sizes []int
			for index := range count {
				s := Shard{index + 1, count}
				part := Select(list, s)
				require.True(t, slices.IsSorted(part))
				require.Len(t, part, s.size(total))
				seen, sizes = append(seen, part...), append(sizes, len(part))
			}
			require.ElementsMatch(t, list, seen)
			require.LessOrEqual(t, slices.Max(sizes)-slices.Min(sizes), 1)
		}
	}
	require.Empty(t, Select([]int{1, 2}, Shard{}))
}

// env is an environment of these variables.
type env map[string]string

func (e env) get(name string) string { return e[name] }

func TestTheEnvironmentOfEachSystemNamesAShard(t *testing.T) {
	for _, c := range []struct {
		env  env
		want Shard
	}{
		{env{"JOB_COMPLETION_INDEX": "0", "NESIM_SHARDS": "3"}, Shard{1, 3}},
		{env{"JOB_COMPLETION_INDEX": "2", "NESIM_SHARDS": "3"}, Shard{3, 3}},
		{env{"CI_NODE_INDEX": "1", "CI_NODE_TOTAL": "3"}, Shard{1, 3}},
		{env{"CI_NODE_INDEX": "3", "CI_NODE_TOTAL": "3"}, Shard{3, 3}},
		{env{"CI_NODE_TOTAL": "1"}, Shard{1, 1}}, // GitLab, in a job that is not parallel
		{env{"CIRCLE_NODE_INDEX": "0", "CIRCLE_NODE_TOTAL": "1"}, Shard{1, 1}},
		{env{"CIRCLE_NODE_INDEX": "4", "CIRCLE_NODE_TOTAL": "5"}, Shard{5, 5}},
		{env{"BUILDKITE_PARALLEL_JOB": "1", "BUILDKITE_PARALLEL_JOB_COUNT": "2"}, Shard{2, 2}},
		{env{"SYSTEM_JOBPOSITIONINPHASE": "1", "SYSTEM_TOTALJOBSINPHASE": "2"}, Shard{1, 2}},
		{env{"CI_NODE_INDEX": "2", "CI_NODE_TOTAL": "3", "CIRCLE_NODE_INDEX": "1", "CIRCLE_NODE_TOTAL": "3"}, Shard{2, 3}},
	} {
		s, err := FromEnv(c.env.get)
		require.NoError(t, err, c.env)
		require.Equal(t, c.want, s, c.env)
	}
}

func TestWhatTheEnvironmentSaysWrongIsNamed(t *testing.T) {
	_, err := FromEnv(env{}.get)
	require.ErrorIs(t, err, ErrNone)
	for _, c := range []struct {
		env  env
		want string
	}{
		{env{"JOB_COMPLETION_INDEX": "0"}, "JOB_COMPLETION_INDEX is set and NESIM_SHARDS is not"},
		{env{"NESIM_SHARDS": "3"}, "NESIM_SHARDS is set and JOB_COMPLETION_INDEX is not"},
		{env{"CI_NODE_INDEX": "1"}, "CI_NODE_TOTAL is not"},
		{env{"CI_NODE_TOTAL": "2"}, "CI_NODE_INDEX is not"},
		{env{"CIRCLE_NODE_TOTAL": "1"}, "CIRCLE_NODE_INDEX is not"},
		{env{"JOB_COMPLETION_INDEX": "3", "NESIM_SHARDS": "3"}, `JOB_COMPLETION_INDEX is "3": with NESIM_SHARDS=3 it has to be a number from 0 to 2`},
		{env{"CI_NODE_INDEX": "0", "CI_NODE_TOTAL": "3"}, "a number from 1 to 3"},
		{env{"CIRCLE_NODE_INDEX": "-1", "CIRCLE_NODE_TOTAL": "3"}, "CIRCLE_NODE_INDEX"},
		{env{"BUILDKITE_PARALLEL_JOB": "x", "BUILDKITE_PARALLEL_JOB_COUNT": "3"}, `BUILDKITE_PARALLEL_JOB is "x"`},
		{env{"SYSTEM_JOBPOSITIONINPHASE": "1", "SYSTEM_TOTALJOBSINPHASE": "0"}, `SYSTEM_TOTALJOBSINPHASE is "0"`},
		{env{"SYSTEM_JOBPOSITIONINPHASE": "1", "SYSTEM_TOTALJOBSINPHASE": "10001"}, "from 1 to 10000"},
		{env{"CI_NODE_INDEX": "2", "CI_NODE_TOTAL": "3", "CIRCLE_NODE_INDEX": "0", "CIRCLE_NODE_TOTAL": "1"}, "CI_NODE_INDEX says shard 2/3, and CIRCLE_NODE_INDEX says 1/1"},
	} {
		_, err := FromEnv(c.env.get)
		require.ErrorContains(t, err, c.want)
		require.NotContains(t, err.Error(), "\n")
	}
}

// split is the runs of n shards of so many scenarios.
func split(total, n int) (runs []*trace.Run, whole []trace.Result) {
	for i := range total {
		whole = append(whole, trace.Result{Name: fmt.Sprint("scenario ", i), File: fmt.Sprintf("%d.yaml", i%3), Status: trace.Passed})
	}
	for i := range n {
		s := Shard{i + 1, n}
		runs = append(runs, &trace.Run{
			Version: "v1", Engine: "scripted", Seed: 7, Shard: s.String(), Started: time.Unix(int64(100-i), 0), Results: Select(whole, s),
		})
	}
	return runs, whole
}

func TestShardsMergeInAnyOrderToTheRunTheyWereSplitFrom(t *testing.T) {
	for _, c := range []struct{ total, n int }{{10, 3}, {9, 3}, {1, 1}, {2, 5}, {0, 2}} {
		runs, whole := split(c.total, c.n)
		rand.Shuffle(len(runs), func(i, j int) { runs[i], runs[j] = runs[j], runs[i] })
		all, err := Merge(runs)
		require.NoError(t, err)
		require.Equal(t, whole, all.Results)
		require.Equal(t, &trace.Run{
			Version: "v1", Engine: "scripted", Seed: 7, Started: time.Unix(int64(101-c.n), 0), Results: whole,
		}, all)
	}
}

func TestShardsThatDoNotBelongTogetherAreRefused(t *testing.T) {
	for want, change := range map[string]func(runs []*trace.Run) []*trace.Run{
		"there are no shards":                      func([]*trace.Run) []*trace.Run { return nil },
		"shard 2/3 is missing":                     func(r []*trace.Run) []*trace.Run { return []*trace.Run{r[0], r[2]} },
		"shards 1/3, 3/3 are missing":              func(r []*trace.Run) []*trace.Run { return r[1:2] },
		"shard 1/3 is given twice":                 func(r []*trace.Run) []*trace.Run { return append(r, r[0]) },
		"run 2 of 3: it is not of a shard":         func(r []*trace.Run) []*trace.Run { r[1].Shard = ""; return r },
		`run 1 of 3: no shard "a"`:                 func(r []*trace.Run) []*trace.Run { r[0].Shard = "a"; return r },
		"shards 1/3 and 2/4 are of different":      func(r []*trace.Run) []*trace.Run { r[1].Shard = "2/4"; return r },
		`differ in their version: "v1" and "v2"`:   func(r []*trace.Run) []*trace.Run { r[1].Version = "v2"; return r },
		`in their engine: "scripted" and "qemu"`:   func(r []*trace.Run) []*trace.Run { r[1].Engine = "qemu"; return r },
		`in their seed: "7" and "the scenarios' o`: func(r []*trace.Run) []*trace.Run { r[2].Seed = 0; return r },
		`"scenario 0" ("0.yaml" line 0) is in`:     func(r []*trace.Run) []*trace.Run { r[1].Results[0] = r[0].Results[0]; return r },
		"shard 1/3 has 5 results of 11, where 4":   func(r []*trace.Run) []*trace.Run { r[0].Results = append(r[0].Results, trace.Result{}); return r },
		"shard 1/3 has 4 results of 9, where 3":    func(r []*trace.Run) []*trace.Run { r[1].Results = r[1].Results[:2]; return r },
	} {
		runs, _ := split(10, 3)
		all, err := Merge(change(runs))
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "\n")
		require.Nil(t, all)
	}
	runs, _ := split(1, 100)
	_, err := Merge(runs[:1])
	require.ErrorContains(t, err, "6/100 and 94 more are missing")
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{"1/4", "4/4", "0/1", "auto", "1/10000", "01/2", "1/2/3"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		if err != nil {
			require.Zero(t, s)
			require.NotContains(t, err.Error(), "\n")
			return
		}
		require.Equal(t, text, s.String())
		require.True(t, 1 <= s.Index && s.Index <= s.Count && s.Count <= MaxCount)
	})
}
