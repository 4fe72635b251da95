package run

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
	"strings"
	"syscall"
	"time"

	"github.com/nesim/nesim/pcidev"
	"github.com/nesim/nesim/scenarios"
	"github.com/nesim/nesim/scenarios/trace"
	"github.com/nesim/nesim/sim/vsock/hybrid"
)

// exec runs a program beside the stage, in the scenario's folder. For as long as it runs it has a vsock, by way of UNIX sockets in a folder of its
// own.
func (p *player) exec(ctx context.Context, b branch, w *scenarios.Exec) (err error) {
	dir, err := os.MkdirTemp("", "nesim-exec-") // private, and its name short enough for sockets
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	host := hybrid.New(ctx, p.stage.Net, func(text string) { p.note(b, "parent", trace.Vsock, text) })
	defer host.Close()
	sockets, err := p.sockets(host, dir, w.Listen)
	if err != nil {
		return err
	}
	return p.program(ctx, b, w, append(p.environment(), sockets...))
}

// program runs the program, and holds what comes of it against what the file says.
func (p *player) program(ctx context.Context, b branch, w *scenarios.Exec, env []string) error {
	cmd := exec.CommandContext(ctx, "sh", "-c", w.Command)
	cmd.Dir = filepath.Dir(p.file)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that its children end with it
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if cmd.ProcessState == nil {
		return err
	}
	_ = cmd.Cancel() // what it has left in the background
	p.note(b, "parent", trace.Note, fmt.Sprintf("%s: exit code %d: %.200q", w.Command, cmd.ProcessState.ExitCode(), out.String()))
	if got := cmd.ProcessState.ExitCode(); got != w.Code {
		return unlike("exit code %d, not %d: %s", got, w.Code, strings.TrimSpace(last(out.String(), 200)))
	}
	want, err := regexp.Compile(w.Output)
	if err != nil {
		return err
	}
	if !want.MatchString(out.String()) {
		return unlike("it printed %q, which does not match %q", last(out.String(), 200), w.Output)
	}
	return nil
}

// environment tells a program of the enclaves: NESIM_CID_NAME for each.
func (p *player) environment() (env []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, name := range sorted(p.enclaves) {
		env = append(env, fmt.Sprintf("NESIM_CID_%s=%d", variable(name), p.enclaves[name].cid.Load()))
	}
	return env
}

// sockets gives a program a vsock, and tells it where: NESIM_VSOCK_NAME is the socket of each enclave that runs, and
// NESIM_VSOCK_PARENT how those begin on which it listens for enclaves. NESIM_VSOCK_PARENT_PORT is the same with the port,
// as a shell would read it.
func (p *player) sockets(host *hybrid.Host, dir string, ports []uint32) (env []string, err error) {
	p.mu.Lock()
	enclaves := maps.Clone(p.enclaves)
	p.mu.Unlock()
	for _, name := range sorted(enclaves) {
		slot, there := p.stage.Hypervisor.Slot(enclaves[name].slot)
		if !there || slot.State != pcidev.StateRunning {
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
	env = append(env, "NESIM_VSOCK_PARENT="+prefix) // after an enclave that is called so
	for _, port := range ports {
		if err := host.Forward(prefix, port); err != nil {
			return nil, err
		}
		env = append(env, fmt.Sprintf("NESIM_VSOCK_PARENT_%d=%s", port, hybrid.Path(prefix, port)))
	}
	return env, nil
}

// variable is a name as variables of the environment have it.
func variable(name string) string {
	return strings.ToUpper(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, name))
}
