package suite_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/pcidev"
	"github.com/nesim/nesim/scenarios"
	"github.com/nesim/nesim/scenarios/report"
	"github.com/nesim/nesim/scenarios/run"
	"github.com/nesim/nesim/scenarios/stage"
	"github.com/nesim/nesim/scenarios/steps"
	"github.com/nesim/nesim/scenarios/suite"
	"github.com/nesim/nesim/scenarios/trace"
	"github.com/nesim/nesim/sim/nedriver"
)

func load(t testing.TB) []*scenarios.Scenario {
	list, err := suite.Load()
	require.NoError(t, err)
	return list
}

func TestTheSuitePassesOnTheScriptedEngine(t *testing.T) {
	for _, s := range load(t) {
		if !s.On(string(stage.Scripted)) {
			continue
		}
		t.Run(s.Name, func(t *testing.T) {
			r := run.Run(t.Context(), s, run.Options{Engine: stage.Scripted, Strict: true})
			require.Equal(t, trace.Passed, r.Status, r.Error)
		})
	}
}

// The same files on microvms, as many at a time as there are processors. Under the race detector, where all takes longer,
// those that show most.
func TestTheSuitePassesOnQEMU(t *testing.T) {
	var list []*scenarios.Scenario
	for _, s := range load(t) {
		if s.On(string(stage.QEMU)) && (!raceDetector || slices.Contains(s.Tags, "smoke")) {
			list = append(list, s)
		}
	}
	run.All(t.Context(), list, run.Options{Engine: stage.QEMU}, 0, func(r trace.Result) {
		if r.Status != trace.Passed {
			var b strings.Builder
			require.NoError(t, report.Terminal(&b, report.Style{}).Result(&r))
			t.Error(b.String())
		}
	})
}

// told is all of a result that does not depend on this machine.
func told(t testing.TB, s *scenarios.Scenario, seed uint64) string {
	r := run.Run(t.Context(), s, run.Options{Engine: stage.Scripted, Seed: seed})
	r.Elapsed = 0
	r.Started = time.Time{}
	text, err := json.MarshalIndent(r, "", " ")
	require.NoError(t, err)
	return string(text)
}

// alike compares long texts, and shows where they part.
func alike(t *testing.T, want, got string) {
	t.Helper()
	if want == got {
		return
	}
	i := 0
	for i < min(len(want), len(got)) && want[i] == got[i] {
		i++
	}
	around := func(s string) string { return s[max(0, i-400):min(len(s), i+200)] }
	t.Fatalf("the runs part:\n%s\n---\n%s", around(want), around(got))
}

func TestTheSameSeedGivesTheSameRun(t *testing.T) {
	for _, s := range load(t) {
		if !s.On(string(stage.Scripted)) {
			continue
		}
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			first := told(t, s, 0)
			for range 3 {
				alike(t, first, told(t, s, 0))
			}
		})
	}
}

func TestTheSuiteCoversEveryCommandCodeAndEnd(t *testing.T) {
	commands, codes, reasons := map[pcidev.Command]bool{}, map[nedriver.ErrorCode]bool{}, map[string]bool{}
	for _, s := range load(t) {
		for _, step := range s.Steps {
			codes[step.ExpectError] = true
			switch action := step.Action.(type) {
			case *steps.PCI:
				commands[action.Command] = true
			case *steps.Ended:
				reasons[action.Reason] = true
			}
		}
	}
	for c := pcidev.CmdEnclaveStart; c < pcidev.CmdMax; c++ {
		require.True(t, commands[c], "no scenario sends %v", c)
	}
	for e := nedriver.NEErrVCPUAlreadyUsed; e <= nedriver.NEErrInvalidEnclaveCID; e++ {
		require.True(t, codes[nedriver.ErrorCode(e)], "no scenario expects %v", e.Name())
	}
	for _, reason := range []string{"asked", "guest exit", "guest panic", "VM killed", "VM failed"} {
		require.True(t, reasons[reason], "no scenario has an enclave end by %q", reason)
	}
}

// BenchmarkTheSuite is how many scenarios one core plays in a second.
func BenchmarkTheSuite(b *testing.B) {
	var list []*scenarios.Scenario
	for _, s := range load(b) {
		if s.On(string(stage.Scripted)) {
			list = append(list, s)
		}
	}
	n := 0
	for b.Loop() {
		r := run.Run(b.Context(), list[n%len(list)], run.Options{Engine: stage.Scripted})
		require.Equal(b, trace.Passed, r.Status, "%s: %s", r.Name, r.Error)
		n++
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "scenarios/s")
}
