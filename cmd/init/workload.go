package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// searchPath is where a workload without a slash in its name is looked for, whatever its own PATH says, and the PATH of
// a workload without any environment. Both as in AWS's init.c (DEFAULT_PATH_ENV).
const searchPath = "/sbin:/usr/sbin:/bin:/usr/bin"

// workload is what the enclave runs.
type workload struct {
	argv, env []string
}

// readWorkload reads the workload's arguments and environment and removes the two files.
func readWorkload(cmd, env string) (w workload, err error) {
	if w.argv, err = readLines(cmd); err != nil {
		return w, err
	}
	if len(w.argv) == 0 || w.argv[0] == "" {
		return w, fmt.Errorf("%s names no program to run", cmd)
	}
	if w.env, err = readLines(env); err != nil {
		return w, err
	}
	if len(w.env) == 0 {
		w.env = []string{"PATH=" + searchPath}
	}
	return w, nil
}

func readLines(path string) ([]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return splitLines(string(b)), os.Remove(path)
}

// splitLines splits text into its lines. An empty line is an empty argument; the last newline ends a line.
func splitLines(text string) []string {
	lines := slices.Collect(strings.Lines(text))
	for i, l := range lines {
		lines[i] = strings.TrimSuffix(l, "\n")
	}
	return lines
}

// run starts the workload in a session of its own and tells how it ended, reaping every orphan meanwhile.
func (w workload) run() (ending string, err error) {
	path, err := findProgram(w.argv[0])
	if err != nil {
		return "", fmt.Errorf("start workload: %w", err)
	}
	pid, err := syscall.ForkExec(path, w.argv, &syscall.ProcAttr{
		Env:   w.env,
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return "", fmt.Errorf("start workload %s: %w", path, err)
	}
	for {
		var status unix.WaitStatus
		switch got, err := unix.Wait4(-1, &status, 0, nil); {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return "", fmt.Errorf("wait for workload: %w", err)
		case got == pid:
			return describe(status), nil
		}
	}
}

// findProgram returns the path of a program: its name if that has a slash, else the first executable file of the name
// in the search path.
func findProgram(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for dir := range strings.SplitSeq(searchPath, ":") {
		path := dir + "/" + name
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("no program %q in %s", name, searchPath)
}

// describe tells how a process ended.
func describe(status unix.WaitStatus) string {
	if status.Signaled() {
		return fmt.Sprintf("workload killed by signal %d (%s)", status.Signal(), unix.SignalName(status.Signal()))
	}
	return fmt.Sprintf("workload exited with code %d", status.ExitStatus())
}
