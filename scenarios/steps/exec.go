package steps

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/nesim/nesim/pcidev"
	"github.com/nesim/nesim/scenarios"
	"github.com/nesim/nesim/scenarios/trace"
	"github.com/nesim/nesim/sim/vsock"
	"github.com/nesim/nesim/sim/vsock/hybrid"
)

var execStep = kind[Exec]("exec", "run a program on this machine")

// Exec runs a program in the scenario's folder. While it runs it has a vsock by UNIX sockets.
type Exec struct {
	Command string   `yaml:"command" doc:"for sh -c; $NESIM_CID_NAME is an enclave's CID, and $NESIM_VSOCK_NAME a UNIX socket that takes \"CONNECT 5005\", as Firecracker's does" required:"true"`
	Code    int      `yaml:"code" doc:"the expected exit code"`
	Output  string   `yaml:"output" doc:"a regular expression that the output matches"`
	Listen  []uint32 `yaml:"listen" doc:"ports of the parent that the program serves: connections to port 7000 arrive at the UNIX socket $NESIM_VSOCK_PARENT_7000, on which it listens"`
}

// Check implements [scenarios.Action].
func (s *Exec) Check(c *scenarios.Checker) {
	c.Only("qemu", "exec takes real time")
	c.Regexp(s.Output)
	for i, port := range s.Listen {
		switch {
		case port == 0 || port == vsock.PortAny:
			c.Fail("port %d is reserved: listen on 1 to %d", port, vsock.PortAny-1)
		case slices.Contains(s.Listen[:i], port):
			c.Fail("port %d is given twice", port)
		}
	}
}

// Do implements [Action].
func (s *Exec) Do(ctx context.Context, w *World, b Branch) (err error) {
	dir, err := os.MkdirTemp("", "nesim-exec-") // private, and its name short enough for sockets
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	host := hybrid.New(ctx, w.Stage.Net, func(text string) { w.Note(b, "parent", trace.Vsock, text) })
	defer host.Close()
	sockets, err := s.sockets(w, host, dir)
	if err != nil {
		return err
	}
	return s.run(ctx, w, b, append(w.cids(), sockets...))
}

// run runs the program and compares what it prints and its exit code.
func (s *Exec) run(ctx context.Context, w *World, b Branch, env []string) error {
	cmd := exec.CommandContext(ctx, "sh", "-c", s.Command)
	cmd.Dir = filepath.Dir(w.file)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that its children end with it
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	out := output{end: cmd.Cancel}
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if out.text.Len() > scenarios.MaxOutput {
		return mismatch("it printed more than %d MiB", scenarios.MaxOutput>>20)
	}
	if cmd.ProcessState == nil {
		return err
	}
	_ = cmd.Cancel() // what it has left in the background
	code := cmd.ProcessState.ExitCode()
	w.Note(b, "parent", trace.Note, fmt.Sprintf("%s: exit code %d: %.200q", s.Command, code, out.String()))
	if code != s.Code {
		return mismatch("exit code %d, not %d: %s", code, s.Code, strings.TrimSpace(last(out.String(), 200)))
	}
	want, err := regexp.Compile(s.Output)
	if err != nil {
		return err
	}
	if !want.MatchString(out.String()) {
		return mismatch("the output %q does not match %q", last(out.String(), 200), s.Output)
	}
	return nil
}

// output is what a program prints. One that prints too much is ended.
type output struct {
	text bytes.Buffer
	end  func() error
}

func (o *output) String() string { return o.text.String() }

func (o *output) Write(p []byte) (int, error) {
	if o.text.Len() > scenarios.MaxOutput {
		return len(p), o.end()
	}
	return o.text.Write(p)
}

// cids are the variables that give a program the enclaves' CIDs: NESIM_CID_NAME.
func (w *World) cids() (env []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range sorted(w.enclaves) {
		env = append(env, fmt.Sprintf("NESIM_CID_%s=%d", variable(name), w.enclaves[name].cid.Load()))
	}
	return env
}

// sockets gives a program a vsock, and the variables that say where it is: NESIM_VSOCK_NAME is the socket of each running
// enclave, and NESIM_VSOCK_PARENT the prefix of those on which the program listens for enclaves. NESIM_VSOCK_PARENT_PORT
// is the same with a port.
func (s *Exec) sockets(w *World, host *hybrid.Host, dir string) (env []string, err error) {
	w.mu.Lock()
	enclaves := maps.Clone(w.enclaves)
	w.mu.Unlock()
	for _, name := range sorted(enclaves) {
		slot, exists := w.Stage.Hypervisor.Slot(enclaves[name].slot)
		if !exists || slot.State != pcidev.StateRunning {
			continue
		}
		cid := uint32(slot.EnclaveCID)
		path := filepath.Join(dir, fmt.Sprintf("cid_%d", cid))
		if err := host.Serve(path, cid); err != nil {
			return nil, err
		}
		env = append(env, "NESIM_VSOCK_"+variable(name)+"="+path)
	}
	prefix := filepath.Join(dir, "parent")
	env = append(env, "NESIM_VSOCK_PARENT="+prefix) // after an enclave of that name
	for _, port := range s.Listen {
		if err := host.Forward(prefix, port); err != nil {
			return nil, err
		}
		env = append(env, fmt.Sprintf("NESIM_VSOCK_PARENT_%d=%s", port, hybrid.Path(prefix, port)))
	}
	return env, nil
}

// variable is a name in the form that environment variables have.
func variable(name string) string {
	return strings.ToUpper(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, name))
}
