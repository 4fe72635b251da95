package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// scenarioFile writes a scenario file.
func scenarioFile(t *testing.T, text string) string {
	path := filepath.Join(t.TempDir(), "scenario.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// exitOf is a command's exit code.
func exitOf(t *testing.T, err error) int {
	if err == nil {
		return 0
	}
	exit := (*exec.ExitError)(nil)
	require.True(t, errors.As(err, &exit), err)
	return exit.ExitCode()
}

func TestTheSuiteIsPlayedWhereNoScenarioIsNamed(t *testing.T) {
	u := newUser(t)
	require.Contains(t, u.must("scenario", "run", "--tags", "smoke"), "an enclave runs, answers and is terminated")
	require.Contains(t, u.must("scenario", "lint"), "no mistakes")
	require.Contains(t, u.must("scenario", "list", "--tags", "field"), "two run-enclave at once\tscripted, qemu\tfield,parallel")
	var schema map[string]any
	require.NoError(t, json.Unmarshal([]byte(u.must("scenario", "schema")), &schema))
	require.Equal(t, "https://json-schema.org/draft/2020-12/schema", schema["$schema"])
}

func TestAScenarioThatFailsIsExitCode1(t *testing.T) {
	u := newUser(t)
	file := scenarioFile(t, "name: fails\nsteps:\n- create: {enclave: one}\n- add_cpu: {enclave: one, cpu: 5000}\n- close: {enclave: one}\n")
	out, errs, err := u.run("", "scenario", "run", file)
	require.Equal(t, 1, exitOf(t, err))
	require.Contains(t, out, "NE_ERR_INVALID_VCPU")
	require.Contains(t, out, file+":4: add_cpu one cpu=5000")
	require.Contains(t, errs, "nesim: 1 ")
}

func TestAFileThatCannotBeUnderstoodIsExitCode2(t *testing.T) {
	u := newUser(t)
	file := scenarioFile(t, "name: bad\nsteps:\n- create: {enclav: one}\n- dail: {}\n")
	for _, command := range []string{"run", "lint", "list"} {
		out, errs, err := u.run("", "scenario", command, file)
		require.Equal(t, 2, exitOf(t, err))
		require.Empty(t, out)
		require.Contains(t, errs, file+":3:12: ")
		require.Contains(t, errs, "enclave")
		require.Contains(t, errs, file+":4:3: ")
		require.NotContains(t, errs, "goroutine")
	}
	require.Contains(t, u.refused("scenario", "run", filepath.Join(t.TempDir(), "none.yaml")), "no such file")
	require.Contains(t, u.refused("scenario", "run", "--engine", "xen"), `unknown engine "xen": choose scripted or qemu`)
	require.Contains(t, u.refused("scenario", "run", "--tags", "nonsense"), "no scenario has any of these tags")
}

func TestTheSameSeedIsTheSameRunOnTheCommandLine(t *testing.T) {
	u := newUser(t)
	seeds := strings.Count(u.must("scenario", "run", "--seed", "99", "--tags", "chance", "--parallel", "1"), "seed 99")
	require.Positive(t, seeds)
}

func TestReportsAreWrittenWhateverBecomesOfTheScenarios(t *testing.T) {
	u := newUser(t)
	file := scenarioFile(t, "name: fails\nsteps:\n- create: {enclave: one}\n  expect_error: ENOSPC\n")
	dir := t.TempDir()
	junit, page := filepath.Join(dir, "junit.xml"), filepath.Join(dir, "run.html")
	_, _, err := u.run("", "scenario", "run", "--report", "junit="+junit, "--report", "html="+page, file)
	require.Equal(t, 1, exitOf(t, err))
	for _, report := range []string{junit, page} {
		text, err := os.ReadFile(report)
		require.NoError(t, err)
		require.Contains(t, string(text), "no error, where ENOSPC is expected")
	}
	require.Contains(t, u.refused("scenario", "run", "--report", "junit", file), "write it as FORMAT=FILE")
	require.Contains(t, u.refused("scenario", "run", "--report", "junt=x", file), `unknown format "junt": choose github`)
	_, errs, err := u.run("", "scenario", "run", "--tags", "smoke", "--report", "json="+filepath.Join(dir, "none", "x"))
	require.Equal(t, 1, exitOf(t, err))
	require.Contains(t, errs, "no such file or directory")
}
