package pack

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// Application is what an enclave runs.
type Application struct {
	Files   []Entry  // its root directory, in any order
	Command []string // the workload's arguments; the first names the program
	Env     []string // its environment, KEY=VALUE
}

// Hello returns the hello enclave: a workload that prints to the console every second, echoes on vsock port 5005 and
// takes commands on port 5006.
func Hello() (Application, error) {
	hello, err := program("hello")
	if err != nil {
		return Application{}, err
	}
	return Application{Files: []Entry{file("hello", 0o755, hello)}, Command: []string{"/hello"}}, nil
}

// mountPoints are the directories of the root directory that init mounts on, or that workloads expect, made when the
// application has none. The same as AWS's tools make.
var mountPoints = []string{"dev", "proc", "run", "sys", "tmp", "var"}

// ramdisk returns the application ramdisk, which PCR2 measures.
func (a Application) ramdisk() (tree, error) {
	cmd, err := joinLines(a.Command)
	if err != nil {
		return nil, fmt.Errorf("cmd: %w", err)
	}
	if len(a.Command) == 0 || a.Command[0] == "" {
		return nil, errors.New("cmd: names no program to run")
	}
	env, err := joinLines(a.Env)
	if err != nil {
		return nil, fmt.Errorf("env: %w", err)
	}
	for i, v := range a.Env {
		if key, _, ok := strings.Cut(v, "="); !ok || key == "" {
			return nil, fmt.Errorf("env: line %d is not KEY=VALUE: %q", i+1, v)
		}
	}
	entries := []Entry{directory("rootfs"), file("cmd", 0o644, cmd), file("env", 0o644, env)}
	missing := slices.Clone(mountPoints)
	for _, e := range a.Files {
		missing = slices.DeleteFunc(missing, func(name string) bool { return name == e.Name })
		if !fs.ValidPath(e.Name) || e.Name == "." {
			return nil, fmt.Errorf("invalid file name %q", e.Name)
		}
		e.Name = "rootfs/" + e.Name
		if e.LinkTo != "" {
			e.LinkTo = "rootfs/" + e.LinkTo
		}
		entries = append(entries, e)
	}
	for _, name := range missing {
		entries = append(entries, directory("rootfs/"+name))
	}
	return newTree(entries)
}

// splitLines splits text into its lines as init does: an empty line is an empty string, the last newline ends a line.
func splitLines(text string) []string {
	lines := slices.Collect(strings.Lines(text))
	for i, l := range lines {
		lines[i] = strings.TrimSuffix(l, "\n")
	}
	return lines
}

// joinLines writes what splitLines reads.
func joinLines(lines []string) ([]byte, error) {
	var text []byte
	for i, l := range lines {
		switch {
		case strings.ContainsRune(l, '\n'):
			return nil, fmt.Errorf("line %d holds a newline: %q", i+1, l)
		case strings.ContainsRune(l, 0):
			return nil, fmt.Errorf("line %d holds a zero byte: %q", i+1, l)
		case strings.HasSuffix(l, "\r"):
			return nil, fmt.Errorf("line %d ends in a carriage return: write it with UNIX line ends", i+1)
		}
		text = append(append(text, l...), '\n')
	}
	return text, nil
}
