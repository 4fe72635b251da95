package pack

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Application is what an enclave runs.
type Application struct {
	Files   []Entry  // its root directory, in any order
	Command []string // the workload's arguments; the first names the program
	Env     []string // its environment, usually KEY=VALUE
	WorkDir string   // the directory it starts in, an absolute path below the root directory; "" for "/"
	User    *User    // whom it runs as; nil for root
}

// User is whom a workload runs as, by number: the enclave's init looks into no /etc/passwd.
type User struct {
	UID, GID uint32
	Groups   []uint32 // supplementary groups
}

// Size returns the bytes that the contents of the application's files have in all.
func (a Application) Size() (size int64) {
	for _, e := range a.Files {
		size += e.Size
	}
	return size
}

// watched returns the same application, with files that report how much of them has been read.
func (a Application) watched(report func(done int64)) Application {
	done := int64(0)
	a.Files = slices.Clone(a.Files)
	for n, e := range a.Files {
		if e.Open == nil {
			continue
		}
		a.Files[n].Open = func() (io.ReadCloser, error) {
			r, err := e.Open()
			if err != nil {
				return nil, err
			}
			return &watchedReader{r, func(n int) { done += int64(n); report(done) }}, nil
		}
	}
	return a
}

type watchedReader struct {
	io.ReadCloser
	report func(n int)
}

func (w *watchedReader) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	w.report(n)
	return n, err
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

// mountPoints are the directories of the root directory that init mounts on, or that workloads expect. The same as AWS's
// tools make, and as there they are made in place of files and links of the same names: no link leads a mount astray.
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
	entries := []Entry{directory("rootfs"), file("cmd", 0o644, cmd), file("env", 0o644, env)}
	if a.WorkDir != "" && a.WorkDir != "/" {
		dir, err := joinLines([]string{a.WorkDir})
		if err == nil && (a.WorkDir[0] != '/' || len(dir) > maxPath) {
			err = errors.New("is no absolute path, or too long")
		}
		if err != nil {
			return nil, fmt.Errorf("working directory %.40q: %w", a.WorkDir, err)
		}
		entries = append(entries, file("workdir", 0o644, dir))
	}
	if a.User != nil {
		entries = append(entries, file("user", 0o644, a.User.lines()))
	}
	missing := slices.Clone(mountPoints)
	for _, e := range a.Files {
		if covered(e) {
			continue
		}
		missing = slices.DeleteFunc(missing, func(name string) bool { return name == e.Name })
		if !validName(e.Name) {
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

// lines writes the user as init reads it: a number a line, first the user's, then the group's, then the other groups'.
func (u User) lines() []byte {
	text := fmt.Appendf(nil, "%d\n%d\n", u.UID, u.GID)
	for _, group := range u.Groups {
		text = fmt.Appendln(text, group)
	}
	return text
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
		}
		text = append(append(text, l...), '\n')
	}
	return text, nil
}
