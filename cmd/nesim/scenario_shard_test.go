package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/nesim/nesim/scenarios/report"
	"github.com/nesim/nesim/scenarios/trace"
)

// readRun reads a JSON report.
func readRun(t *testing.T, file string) *trace.Run {
	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	run, err := report.Read(t.Context(), f)
	require.NoError(t, err)
	return run
}

// withoutTime is a run without what the machine's clock says of it.
func withoutTime(run *trace.Run) *trace.Run {
	run.Started = time.Time{}
	for i := range run.Results {
		run.Results[i].Started, run.Results[i].Elapsed = time.Time{}, 0
	}
	return run
}

func TestScenarioShardsMergeToWhatOneRunReports(t *testing.T) {
	u := newUser(t)
	dir := t.TempDir()
	whole := filepath.Join(dir, "whole.json")
	u.must("scenario", "run", "--tags", "smoke,field", "--report", "json="+whole)
	var files []string
	for i := 1; i <= 3; i++ {
		files = append(files, filepath.Join(dir, fmt.Sprint(i)))
		out := u.must("scenario", "run", "--tags", "smoke,field", "--shard", fmt.Sprintf("%d/3", i), "--report", "json="+files[i-1])
		require.Contains(t, out, fmt.Sprintf("(shard %d/3)", i))
	}
	merged, junit := filepath.Join(dir, "merged.json"), filepath.Join(dir, "merged.xml")
	out := u.must("scenario", "merge", files[2], files[0], files[1], "--report", "json="+merged, "--report", "junit="+junit)
	want := withoutTime(readRun(t, whole))
	require.Equal(t, want, withoutTime(readRun(t, merged)))
	require.Greater(t, len(want.Results), 3)
	require.Equal(t, "scripted", want.Engine)
	require.Equal(t, fmt.Sprintf("%d passed, 0 failed, 0 could not run, 0 skipped\n", len(want.Results)), out)
	require.FileExists(t, junit)

	none := filepath.Join(dir, "none.json")
	require.Equal(t, "nesim: shard 2/3 is missing", u.refused("scenario", "merge", files[0], files[2], "--report", "json="+none))
	require.Equal(t, "nesim: shard 1/3 is given twice", u.refused("scenario", "merge", files[0], files[0]))
	require.Contains(t, u.refused("scenario", "merge", whole), "whole.json: it is not of a shard")
	require.Contains(t, u.refused("scenario", "merge", junit), "merged.xml: not a JSON report of nesim")
	require.Contains(t, u.refused("scenario", "merge", none), "no such file")
	require.Contains(t, u.refused("scenario", "merge", files[0], "--report", "json"), "write it as FORMAT=FILE")
	require.NoFileExists(t, none)
}

func TestScenarioThatFailsInAShardIsExitCode1OfMergingToo(t *testing.T) {
	u := newUser(t)
	file := scenarioFile(t, "name: fails\nsteps:\n- create: {enclave: one}\n  expect_error: ENOSPC\n---\n"+
		"name: passes\nsteps:\n- create: {enclave: one}\n- close: {enclave: one}\n")
	dir := t.TempDir()
	var files []string
	for i, want := range []int{1, 0, 0} { // the third has nothing to do
		files = append(files, filepath.Join(dir, fmt.Sprint(i)))
		_, _, err := u.run("", "scenario", "run", "--shard", fmt.Sprintf("%d/3", i+1), "--report", "json="+files[i], file)
		require.Equal(t, want, exitOf(t, err))
	}
	require.Empty(t, readRun(t, files[2]).Results)
	out, errs, err := u.run("", append([]string{"scenario", "merge", "--report", "github=-"}, files...)...)
	require.Equal(t, 1, exitOf(t, err))
	require.Contains(t, out, "no error, where ENOSPC is expected")
	require.Contains(t, out, "::error file=")
	require.Equal(t, "nesim: 1 of 2 scenarios failed\n", errs)
}

func TestScenarioShardOfTheEnvironment(t *testing.T) {
	u := newUser(t)
	for _, name := range []string{"NESIM_SHARDS", "JOB_COMPLETION_INDEX", "CI_NODE_INDEX", "CI_NODE_TOTAL", "CIRCLE_NODE_INDEX",
		"CIRCLE_NODE_TOTAL", "BUILDKITE_PARALLEL_JOB", "BUILDKITE_PARALLEL_JOB_COUNT", "SYSTEM_JOBPOSITIONINPHASE", "SYSTEM_TOTALJOBSINPHASE"} {
		t.Setenv(name, "") // whatever runs the tests
	}
	require.Contains(t, u.refused("scenario", "run", "--shard", "auto"), "no CI system's shard is in the environment")
	require.Contains(t, u.refused("scenario", "run", "--shard", "0/2"), "--shard 0/2: no shard 0/2: the first is 1/2")
	t.Setenv("JOB_COMPLETION_INDEX", "1")
	require.Contains(t, u.refused("scenario", "run", "--shard", "auto"), "NESIM_SHARDS is not")
	t.Setenv("NESIM_SHARDS", "2")
	require.Contains(t, u.must("scenario", "run", "--tags", "smoke", "--shard", "auto"), "(shard 2/2)")
	require.NotContains(t, u.must("scenario", "run", "--tags", "smoke"), "shard")
}

func TestScenarioReportsAreWrittenWholeOrNotAtAll(t *testing.T) {
	dir := t.TempDir()
	all := &trace.Run{Results: []trace.Result{{Name: "one", Status: trace.Passed}}}
	file := filepath.Join(dir, "report")
	require.NoError(t, os.WriteFile(file, []byte("before"), 0o600))
	require.ErrorContains(t, writeReport("none", file, all), "no report format")
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "before", string(text))

	require.NoError(t, writeReport("tap", file, all))
	link := filepath.Join(dir, "link")
	require.NoError(t, os.Symlink("linked", link))
	require.NoError(t, writeReport("tap", link, all))
	var want bytes.Buffer
	require.NoError(t, report.Write("tap", &want, all))
	for _, name := range []string{"report", "linked"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, want.String(), string(text))
	}
	require.NoError(t, writeReport("tap", os.DevNull, all))

	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	require.Equal(t, "link linked report", strings.Join(names, " "), "nothing else is left")
	err = writeReport("tap", filepath.Join(dir, "none", "x"), all)
	require.EqualError(t, err, "write "+filepath.Join(dir, "none", "x")+": no such file or directory")
}

// commandsIn finds the nesim commands in a YAML file of a CI system: in lines of scripts, and in lists of arguments.
func commandsIn(n *yaml.Node) (found [][]string) {
	switch n.Kind {
	case yaml.ScalarNode:
		for line := range strings.Lines(strings.ReplaceAll(n.Value, "\\\n", " ")) {
			if args := strings.Fields(variable.ReplaceAllString(line, "1")); len(args) > 1 && args[0] == "nesim" {
				found = append(found, args[1:])
			}
		}
	case yaml.SequenceNode:
		var args []string
		for _, item := range n.Content {
			args = append(args, variable.ReplaceAllString(item.Value, "1"))
		}
		if len(args) > 1 && args[0] == "nesim" && args[1] == "scenario" { // GitLab's needs also begin with nesim
			return [][]string{args[1:]}
		}
	}
	for _, child := range n.Content {
		found = append(found, commandsIn(child)...)
	}
	return found
}

// variable is a CI system's, a shell's or a container's variable.
var variable = regexp.MustCompile(`\$\{\{.*?\}\}|\$\(\w+\)|\$\w+`)

func TestScenarioCommandsOfTheCISystemsFilesAreUnderstood(t *testing.T) {
	for file, want := range map[string]int{"github.yaml": 4, "gitlab.yaml": 4, "kubernetes.yaml": 2} {
		text, err := os.ReadFile(filepath.Join("../../scenarios/ci", file))
		require.NoError(t, err)
		count := 0
		d := yaml.NewDecoder(bytes.NewReader(text))
		for n := new(yaml.Node); d.Decode(n) == nil; n = new(yaml.Node) {
			for _, args := range commandsIn(n) {
				count++
				cmd, rest, err := root().Find(args)
				require.NoError(t, err, args)
				require.Equal(t, "nesim scenario "+args[1], cmd.CommandPath())
				require.NoError(t, cmd.ParseFlags(rest), args)
				require.NoError(t, cmd.ValidateArgs(cmd.Flags().Args()), args)
				reports, err := cmd.Flags().GetStringArray("report")
				require.NoError(t, err)
				require.NotEmpty(t, reports)
				require.NoError(t, checkReports(reports), args)
				if part := cmd.Flag("shard"); part != nil && part.Value.String() != "auto" {
					_, err := shardOf(part.Value.String(), os.Getenv)
					require.NoError(t, err, args)
					require.Contains(t, []string{"scripted", "qemu"}, cmd.Flag("engine").Value.String())
				}
			}
		}
		require.Equal(t, want, count, file)
	}
}
