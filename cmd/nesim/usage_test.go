package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// exits runs a nesim command that has to fail, and returns its error and its exit code.
func (u *user) exits(args ...string) (told string, code int) {
	u.Helper()
	told = u.refused(args...)
	_, _, err := u.run("", args...)
	exit := (*exec.ExitError)(nil)
	require.True(u, errors.As(err, &exit))
	return told, exit.ExitCode()
}

func TestCommandLinesAreRefusedAsByNitroCLI(t *testing.T) {
	u := newUser(t)
	run := func(more ...string) []string { return append([]string{"run-enclave"}, more...) }
	for _, test := range []struct {
		args  []string
		tells string
		exit  int
	}{
		{run("--eif-path", "a.eif", "--cpu-count", "2"), "[E01] --memory is missing", 2},
		{run("--memory", "64", "--cpu-count", "2"), "[E01] --eif-path is missing", 2},
		{run("--eif-path", "a.eif", "--memory", "64"), "[E01] --cpu-count or --cpu-ids is missing", 2},
		{run("--eif-path", "a.eif", "--memory", "64", "--cpu-count", "2", "--cpu-ids", "2", "3"), "[E02] --cpu-count and --cpu-ids", 2},
		{run("--config", "a.json", "--memory", "64"), "[E02] --config and --memory", 2},
		{run("--config", "a.json", "--debug-mode"), "[E02] --config and --debug-mode", 2},
		{run("--eif-path", "a.eif", "--memory", "64", "--cpu-ids", "2", "x"), `[E03] --cpu-ids "2,x" has "x", which is not the ID of a CPU`, 3},
		{run("--eif-path", "a.eif", "--memory", "64", "--cpu-count", "-2"), `[E03] --cpu-count "-2" must be positive: give 2`, 3},
		{run("--eif-path", "a.eif", "--memory", "64", "--cpu-count", "0"), "[E29] an enclave needs at least one CPU core, not 0 CPUs: give 2", 29},
		{run("--eif-path", "a.eif", "--memory", "64", "--cpu-count", "1"), "[E29] an enclave is given whole CPU cores, of 2 CPUs each, not 1 CPU: give 2", 29},
		{run("--eif-path", "a.eif", "--memory", "64", "--cpu-count", "2", "--enclave-cid", "x"), `[E03] --enclave-cid "x" is not a whole number`, 3},
		{run("--eif-path", "a.eif", "--memory", "64", "--cpu-count", "2", "--enclave-cid", "2"), "[E03] the CID 2 is reserved", 3},
		{run("--eif-path", "a.eif", "--memory", "64", "--cpu-count", "2", "--enclave-cid", "4294967295"), "[E03] the CID 4294967295 is reserved", 3},
		{run("--eif-path", "a.eif", "--memory", "64X", "--cpu-count", "2"), `[E03] --memory "64X"`, 3},
		{run("--eif-path", "a.eif", "--memory", "99999999999999999999", "--cpu-count", "2"), "is too large a number", 3},
		{run("--memory"), "flag needs an argument: --memory", 2},
		{nil, "a command is missing", 2},
		{run("a.eif", "b.eif"), `unexpected argument "b.eif": usage: nesim run-enclave (`, 2},
		{[]string{"run-enclav"}, `nesim: unknown command "run-enclav": did you mean nesim run-enclave?`, 2},
		{[]string{"ps", "--all"}, `nesim: unknown command "ps": did you mean nesim describe-enclaves?`, 2},
		{[]string{"rm", "hello"}, "did you mean nesim terminate-enclave?", 2},
		{[]string{"logs"}, "did you mean nesim console?", 2},
		{[]string{"scenario", "runn"}, `unknown command "runn": did you mean nesim scenario run?`, 2},
		{[]string{"attest", "nonsense"}, `unknown command "nonsense": see nesim attest --help`, 2},
		{[]string{"attest"}, "a command is missing", 2},
		{run("--eif", "a.eif"), "nesim: unknown flag --eif: did you mean --eif-path?", 2},
		{run("--memroy", "64"), "nesim: unknown flag --memroy: did you mean --memory?", 2},
		{run("--cid", "16"), "nesim: unknown flag --cid: did you mean --enclave-cid?", 2},
		{run("--nonsense"), "nesim: unknown flag --nonsense: see nesim run-enclave --help", 2},
		{[]string{"vsock", "dial", "--json", "3", "1"}, "nesim vsock dial does not print JSON: leave --json out", 2},
		{[]string{"vsock", "dial", "16"}, "wrong number of arguments (1): usage: nesim vsock dial CID PORT", 2},
		{[]string{"describe-enclaves", "x"}, `unexpected argument "x": usage: nesim describe-enclaves`, 2},
		{[]string{"eif", "inspect"}, "an argument is missing: usage: nesim eif inspect FILE", 2},
		{run("a.eif", "--eif-path", "a.eif"), `[E02] the argument "a.eif" and --eif-path exclude each other`, 2},
		{run("a.eif", "--config", "a.json"), `[E02] the argument "a.eif" and --config exclude each other`, 2},
		{run("a.eif", "--memory", "64"), "[E01] --cpu-count or --cpu-ids is missing", 2},
		{run("none.eif", "--memory", "64", "--cpu-ids", "2", "3", "b.eif"), `unexpected argument "b.eif"`, 2},
		{[]string{"describe-eif", "none.eif"}, "[E19]", 19},
		{[]string{"describe-eif", "a.eif", "--eif-path", "a.eif"}, "[E02]", 2},
		{[]string{"sign-eif", "a.eif", "--eif-path", "a.eif"}, "[E02]", 2},
		{[]string{"explain", "E36", "--error-code", "E36"}, "[E02]", 2},
		{[]string{"explain", "E99"}, "[E03]", 3},
		{[]string{"terminate-enclave", "hello", "--all"}, `[E02] the argument "hello" and --all exclude each other`, 2},
		{[]string{"console", "hello", "--enclave-id", "i-1-enc1"}, "[E02]", 2},
		{[]string{"console", "hello"}, "[E58] no nesim daemon runs", 58},
		{[]string{"console", "i-1-enc1"}, "[E11] no nesim daemon runs", 11},
		{[]string{"wait-enclave", "hello"}, "[E58]", 58},
		{[]string{"describe-enclaves", "--quiet", "--verbose"}, "[E02] --quiet and --verbose exclude each other", 2},
		{[]string{"terminate-enclave"}, "[E01] --enclave-id or --enclave-name or --all is missing", 2},
		{[]string{"terminate-enclave", "--all", "--enclave-id", "i"}, "[E02] --enclave-id and --all", 2},
		{[]string{"console"}, "[E01] --enclave-id or --enclave-name is missing", 2},
		{[]string{"console", "--enclave-id", "i", "--enclave-name", "n"}, "[E02] --enclave-id and --enclave-name", 2},
		{[]string{"console", "--enclave-name", "n", "--disconnect-timeout", "soon"}, "[E03] --disconnect-timeout", 3},
		{[]string{"console", "--enclave-name", "n"}, "[E58] no nesim daemon runs", 58},
		{[]string{"console", "--enclave-id", "i-1-enc1"}, "[E11] no nesim daemon runs", 11},
		{[]string{"describe-eif"}, "[E01]", 2},
		{[]string{"describe-eif", "--eif-path", "none.eif"}, "[E19]", 19},
		{[]string{"pcr"}, "[E01] --input or --signing-certificate is missing", 2},
		{[]string{"pcr", "--input", "a", "--signing-certificate", "b"}, "[E02]", 2},
		{[]string{"pcr", "--input", "none"}, "[E19]", 19},
		{[]string{"pcr", "--signing-certificate", "../../go.mod"}, "[E57]", 57},
		{[]string{"explain"}, "[E01]", 2},
		{[]string{"explain", "--error-code", "E99"}, "[E03]", 3},
		{[]string{"sign-eif"}, "[E01] --eif-path is missing", 1},
		{[]string{"sign-eif", "--eif-path", "a.eif"}, "[E60]", 60},
		{[]string{"sign-eif", "--eif-path", "a.eif", "--private-key", "k.pem"}, "[E01] --signing-certificate is missing", 2},
		{[]string{"sign-eif", "--eif-path", "a.eif", "--signing-certificate", "c.pem"}, "[E01] --private-key or --signer-command is missing", 2},
		{[]string{"sign-eif", "--eif-path", "a.eif", "--signing-certificate", "none.pem", "--private-key", "k.pem"}, "[E60]", 60},
	} {
		told, code := u.exits(test.args...)
		require.Contains(t, told, test.tells, "%v", test.args)
		require.Equal(t, test.exit, code, "%v: %s", test.args, told)
	}
	require.NoFileExists(t, filepath.Join(u.dir, "nesim.log"), "a daemon was started for nothing")
}

func TestBadConfigurationsAreRefused(t *testing.T) {
	u := newUser(t)
	for content, want := range map[string]struct {
		tells string
		exit  int
	}{
		``:                                       {"[E17]", 17},
		`[]`:                                     {"[E17]", 17},
		`{"eif_path":"a.eif","memory_mib":"64"}`: {"memory_mib must not be a JSON string", 17},
		`{"memory_mib":64,"cpu_count":2}`:        {"eif_path is missing", 17},
		`{"eif_path":"a.eif","cpu_count":2}`:     {"memory_mib is missing", 17},
		`{"eif_path":"a.eif","memory_mib":64}`:   {"[E01]", 1},
		`{"eif_path":"a.eif","memory_mib":64,"cpu_count":2,"cpu_ids":[2,3]}`:     {"[E02]", 2},
		`{"eif_path":"a.eif","memory_mib":64,"cpu_count":2,"enclave_cid":3}`:     {"[E03]", 3},
		`{"eif_path":"none.eif","memory_mib":64,"cpu_count":2,"unknown":"key"}`:  {"[E19]", 19},
		`{"eif_path":"none.eif","memory_mib":64,"cpu_count":2,"cpu_ids":null}`:   {"[E19]", 19},
		`{"eif_path":"usage.go","memory_mib":64,"cpu_ids":[2,2]}`:                {"[E20] CPU 2 is named twice", 20},
		`{"eif_path":"usage.go","memory_mib":64,"cpu_ids":[2,99]}`:               {"[E21] CPU 99 is not in the pool", 21},
		`{"eif_path":"usage.go","memory_mib":64,"cpu_count":2,"debug_mode":1}`:   {"[E17]", 17},
		`{"eif_path":"usage.go","memory_mib":64,"cpu_count":2,"cpu_ids":"2, 3"}`: {"[E17]", 17},
	} {
		path := filepath.Join(u.dir, "config.json")
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		told, code := u.exits("run-enclave", "--config", path)
		require.Contains(t, told, want.tells, content)
		require.Equal(t, want.exit, code, content)
	}
	_, code := u.exits("run-enclave", "--config", filepath.Join(u.dir, "none.json"))
	require.Equal(t, 19, code)
}

func TestCPUIDsMayStandApart(t *testing.T) {
	for _, test := range [][2][]string{
		{{"run-enclave", "--cpu-ids", "2", "3", "--memory", "64"}, {"run-enclave", "--cpu-ids", "2,3", "--memory", "64"}},
		{{"run-enclave", "--cpu-ids", "2,3"}, {"run-enclave", "--cpu-ids", "2,3"}},
		{{"run-enclave", "--cpu-ids"}, {"run-enclave", "--cpu-ids"}},
		{{"run-enclave", "--cpu-ids=2", "3"}, {"run-enclave", "--cpu-ids=2", "3"}},
		{{"run-enclave", "--cpu-ids", "2", "3", "a.eif"}, {"run-enclave", "--cpu-ids", "2,3", "a.eif"}},
		{{"a", "--", "--cpu-ids", "2", "3"}, {"a", "--", "--cpu-ids", "2", "3"}},
	} {
		require.Equal(t, test[1], foldCPUIDs(test[0]))
	}
}

func TestMemoryHasNitroCLIsUnits(t *testing.T) {
	for text, want := range map[string]uint64{
		"512": 512, "512M": 512, "512MB": 512, "512MiB": 512, "512mib": 512, "512 MiB": 512, "2g": 2048, "1GB": 1024, "1GiB": 1024,
		"2T": 2 << 20, "1TiB": 1 << 20, "0": 0,
	} {
		var m memoryMiB
		require.NoError(t, m.Set(text), text)
		require.EqualValues(t, want, m, text)
	}
	for _, text := range []string{"", "M", "2K", "2KiB", "2iB", "-1", "1.5G", "18446744073709551615G", "2MM", "2M5", "0x10", "512\u041c"} {
		require.Error(t, new(memoryMiB).Set(text), text)
	}
}

func TestCodesAreExplained(t *testing.T) {
	u := newUser(t)
	text := u.must("explain", "--error-code", "E26")
	require.Contains(t, text, "E26: too little memory")
	require.Contains(t, text, "--memory")
	require.Equal(t, text, u.must("explain", "--error-code", "e26"))
	require.Equal(t, text, u.must("explain", "E26"))
}

func TestShellsAndManualsAreServed(t *testing.T) {
	u := newUser(t)
	for _, shell := range []string{"bash", "zsh", "fish"} {
		require.Contains(t, u.must("completion", shell), "nesim")
	}
	require.Contains(t, u.must("__complete", "explain", "--error-code", ""), "E26\ttoo little memory")
	require.Contains(t, u.must("__complete", "run-enc"), "run-enclave")
	for _, args := range [][]string{{"console", "--enclave-name", ""}, {"console", ""}, {"wait-enclave", ""}, {"terminate-enclave", "--enclave-id", ""}} {
		require.Equal(t, ":4\n", u.must(append([]string{"__complete"}, args...)...), "no daemon: no names, and no files")
	}
	require.Equal(t, "3\tthe parent\n:4\n", u.must("__complete", "vsock", "dial", ""))
	require.NoFileExists(t, filepath.Join(u.dir, "nesim.log"), "completion started a daemon")
	require.Equal(t, "scripted\nqemu\n:4\n", u.must("__complete", "scenario", "run", "--engine", ""))
	require.Contains(t, u.must("__complete", "scenario", "run", "--report", ""), "junit=\n")
	require.Contains(t, u.must("__complete", "scenario", "run", "--tags", "sm"), "smoke\n")
	require.Equal(t, "auto\nkvm\ntcg\n:4\n", u.must("__complete", "serve", "--accel", ""))
	require.Equal(t, "eif\n:8\n", u.must("__complete", "run-enclave", ""))
	require.Contains(t, u.must("__complete", "explain", ""), "E26\ttoo little memory")

	dir := filepath.Join(u.dir, "man1")
	u.must("man", "--output", dir)
	page, err := os.ReadFile(filepath.Join(dir, "nesim-run-enclave.1"))
	require.NoError(t, err)
	require.Contains(t, string(page), "eif-path")
	require.FileExists(t, filepath.Join(dir, "nesim.1"))
}
