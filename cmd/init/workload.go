package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/internal/guestwire"
	"github.com/nesim/nesim/sim/workload"
)

// program is the workload that the enclave runs.
type program struct {
	argv, env []string
	dir       string
	user      *syscall.Credential // nil for root
}

// readWorkload reads the files in dir that describe the workload and removes them.
func readWorkload(dir string) (w program, err error) {
	if w.argv, err = readLines(dir + "/cmd"); err != nil {
		return w, err
	}
	if len(w.argv) == 0 || w.argv[0] == "" {
		return w, errors.New("/cmd names no program to run")
	}
	if w.env, err = readLines(dir + "/env"); err != nil {
		return w, err
	}
	if len(w.env) == 0 {
		w.env = []string{"PATH=" + guestwire.SearchPath}
	}
	workdir, err := readLines(dir + "/workdir")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return w, err
	}
	if w.dir = "/"; len(workdir) > 0 && workdir[0] != "" {
		w.dir = workdir[0]
	}
	user, err := readLines(dir + "/user")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return w, err
	}
	w.user, err = parseUser(user)
	return w, err
}

// parseUser reads the lines of /user: the numbers of the user, of its group, and of its other groups.
func parseUser(lines []string) (*syscall.Credential, error) {
	if len(lines) == 0 {
		return nil, nil
	}
	var ids []uint32
	for _, line := range lines {
		id, err := strconv.ParseUint(line, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("/user: %q is no number of a user or group", line)
		}
		ids = append(ids, uint32(id))
	}
	if len(ids) < 2 {
		return nil, errors.New("/user: the user's group is missing")
	}
	return &syscall.Credential{Uid: ids[0], Gid: ids[1], Groups: ids[2:]}, nil
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

// run starts the program in a session of its own and reports how it ended, reaping every orphan meanwhile.
func (w program) run() (ending workload.Report, err error) {
	path, err := findProgram(w.argv[0], w.env)
	if err != nil {
		return ending, fmt.Errorf("start workload: %w", err)
	}
	if err := w.prepare(); err != nil {
		return ending, err
	}
	pid, err := syscall.ForkExec(path, w.argv, &syscall.ProcAttr{
		Dir:   w.dir,
		Env:   w.env,
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Setsid: true, Credential: w.user},
	})
	if err != nil {
		return ending, fmt.Errorf("start workload %s: %w", path, err)
	}
	for {
		var status unix.WaitStatus
		switch got, err := unix.Wait4(-1, &status, 0, nil); {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return ending, fmt.Errorf("wait for workload: %w", err)
		case got == pid:
			return workload.Of(status), nil
		}
	}
}

// prepare checks the working directory, whose absence the start would report as the program's, and gives the user the
// console, so that programs can open /dev/stdout, and the devices of an enclave, of which the kernel makes /dev/vsock
// root's alone.
func (w program) prepare() error {
	if st, err := os.Stat(w.dir); err != nil {
		return fmt.Errorf("working directory: %w", err)
	} else if !st.IsDir() {
		return fmt.Errorf("working directory %s is no directory", w.dir)
	}
	if w.user == nil {
		return nil
	}
	if err := unix.Fchown(1, int(w.user.Uid), -1); err != nil {
		return fmt.Errorf("give the console to user %d: %w", w.user.Uid, err)
	}
	for _, device := range []string{"/dev/vsock", "/dev/nsm"} {
		if err := os.Chmod(device, 0o666); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("give %s to user %d: %w", device, w.user.Uid, err)
		}
	}
	return nil
}

// findProgram returns the path of a program: its name if that has a slash, else the first executable file of the name
// in the search path, and then, where AWS's init gives up, in the workload's own.
func findProgram(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	path := guestwire.SearchPath
	for _, v := range env {
		if own, ok := strings.CutPrefix(v, "PATH="); ok {
			path = guestwire.SearchPath + ":" + own
		}
	}
	for dir := range strings.SplitSeq(path, ":") {
		if !strings.HasPrefix(dir, "/") {
			continue
		}
		program := dir + "/" + name
		if st, err := os.Stat(program); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return program, nil
		}
	}
	return "", fmt.Errorf("no program %q in %s", name, path)
}
