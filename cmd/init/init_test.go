package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestAnArgumentIsALine(t *testing.T) {
	for text, want := range map[string][]string{
		"":                  nil,
		"/bin/app":          {"/bin/app"},
		"/bin/app\n":        {"/bin/app"},
		"sh\n-c\n echo a\n": {"sh", "-c", " echo a"},
		"app\n\nlast\n":     {"app", "", "last"},
	} {
		require.Equal(t, want, splitLines(text), "%q", text)
	}
}

func TestTheWorkloadIsReadOnce(t *testing.T) {
	dir := t.TempDir()
	cmd, env := filepath.Join(dir, "cmd"), filepath.Join(dir, "env")
	write := func(path, text string) { require.NoError(t, os.WriteFile(path, []byte(text), 0o600)) }

	write(cmd, "/app\n-v\n")
	write(env, "A=1\nB=two words\n")
	w, err := readWorkload(cmd, env)
	require.NoError(t, err)
	require.Equal(t, workload{argv: []string{"/app", "-v"}, env: []string{"A=1", "B=two words"}}, w)
	require.NoFileExists(t, cmd)
	require.NoFileExists(t, env)

	write(cmd, "/app\n")
	write(env, "")
	w, err = readWorkload(cmd, env)
	require.NoError(t, err)
	require.Equal(t, []string{"PATH=" + searchPath}, w.env, "without an environment")

	write(cmd, "\n-v\n")
	_, err = readWorkload(cmd, env)
	require.ErrorContains(t, err, "names no program to run")
}

func TestAProgramIsFoundByItsPathOrItsName(t *testing.T) {
	path, err := findProgram("./no/such")
	require.NoError(t, err)
	require.Equal(t, "./no/such", path)

	path, err = findProgram("sh")
	require.NoError(t, err)
	require.Contains(t, path, "/bin/sh")

	_, err = findProgram("no-such-program")
	require.EqualError(t, err, `no program "no-such-program" in /sbin:/usr/sbin:/bin:/usr/bin`)
}

func TestTheEndOfTheWorkloadIsDescribed(t *testing.T) {
	require.Equal(t, "workload exited with code 0", describe(0))
	require.Equal(t, "workload exited with code 3", describe(3<<8))
	require.Equal(t, "workload killed by signal 9 (SIGKILL)", describe(unix.WaitStatus(unix.SIGKILL)))
	require.Equal(t, "workload killed by signal 11 (SIGSEGV)", describe(unix.WaitStatus(unix.SIGSEGV)|0x80), "with a core dump")
}

func TestOnlyEnabledControllersAreMounted(t *testing.T) {
	list := "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t1\t1\nmemory\t0\t1\t0\npids\t0\t1\t1\nodd line\n"
	require.Equal(t, []string{"cpu", "pids"}, enabledControllers([]byte(list)))
}
