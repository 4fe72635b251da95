package qemu

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// pipeDelay is how long the pipes of a dead QEMU may stay open in processes that left its group.
const pipeDelay = 2 * time.Second

// A process is one QEMU and whatever it started, in a process group of its own.
type process struct {
	cmd    *exec.Cmd
	stderr *tail
	done   chan struct{} // closed when reaped and its pipes are read to the end

	mu     sync.Mutex
	reaped bool // from here on the pid may be somebody else's
}

// startProcess starts binary; its standard output goes to stdout, files become descriptors 3 and up.
// It dies with this process, however this process dies.
func startProcess(binary string, args []string, files []*os.File, stdout io.Writer) (*process, error) {
	p := &process{
		cmd:    exec.Command(binary, args...),
		stderr: &tail{},
		done:   make(chan struct{}),
	}
	p.cmd.Stdout = stdout
	p.cmd.Stderr = p.stderr
	p.cmd.ExtraFiles = files
	p.cmd.WaitDelay = pipeDelay
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}

	started := make(chan error, 1)
	go p.run(started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("cannot start QEMU: %w", err)
	}
	return p, nil
}

// run starts the process and stays on its OS thread until the process is reaped: the death of the
// starting thread, which the Go runtime may end at will, would kill it (prctl(2), PR_SET_PDEATHSIG).
func (p *process) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	defer close(p.done)
	// While the dead leader is not reaped its number still names the group, so what it left behind
	// can be killed without hitting a stranger.
	for unix.Waitid(unix.P_PID, p.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	p.kill()
	p.mu.Lock()
	p.reaped = true
	p.mu.Unlock()
	_ = p.cmd.Wait() // how it ended is read from ProcessState
}

// kill kills the process's group; harmless after its end.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reaped {
		_ = unix.Kill(-p.cmd.Process.Pid, unix.SIGKILL)
	}
}

// ending is how a process that is done ended: by which signal (0: none), and in words.
func (p *process) ending() (signal syscall.Signal, words string) {
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() {
		sig := status.Signal()
		return sig, fmt.Sprintf("%s (%s)", unix.SignalName(sig), sig)
	}
	words = p.cmd.ProcessState.String()
	if line := p.stderr.complaint(); line != "" {
		words += ": " + line
	}
	return 0, words
}

const (
	// tailSize bounds what is kept of QEMU's own messages, in bytes.
	tailSize = 8 << 10
	// maxLine bounds one line of QEMU's or the guest's in a message of ours, in bytes.
	maxLine = 256
	// maxKVMData is how many lines may stand between KVM's failure and its kind: kvm_run has room for 16 values.
	maxKVMData = 17
)

// tail is a writer that keeps the last tailSize bytes.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b[max(0, len(b)-tailSize):]...)
	if over := len(t.buf) - tailSize; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(b), nil
}

// complaint is the line that says what went wrong: KVM's failure with the line that names its kind, which
// is the next but for data in numbers; else the last line that is no warning. Empty when QEMU was silent.
func (t *tail) complaint() string {
	t.mu.Lock()
	lines := strings.Split(strings.TrimSpace(string(t.buf)), "\n")
	t.mu.Unlock()
	last := ""
	for i, line := range lines {
		if strings.Contains(line, "KVM internal error") {
			return oneLine(line + kind(lines[i+1:]))
		}
		if strings.Contains(line, "kvm run failed") {
			return oneLine(line)
		}
		if strings.TrimSpace(line) != "" && (last == "" || !strings.Contains(line, "warning: ")) {
			last = line
		}
	}
	if program, message, ok := strings.Cut(last, ": "); ok && strings.Contains(program, "qemu-system") {
		last = message
	}
	return oneLine(last)
}

// kind is the line that names the kind of a KVM internal error, after the data that KVM gave, before the registers
// (kvm_handle_internal_error in QEMU's accel/kvm/kvm-all.c), as more of a sentence.
func kind(lines []string) string {
	for _, line := range lines[:min(len(lines), maxKVMData)] {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "extra data[") {
			if strings.Contains(line, "=") {
				break // the registers
			}
			return ", " + line
		}
	}
	return ""
}

// oneLine makes foreign text fit for a message: printable, short, one line.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.TrimSpace(s))
	return strings.ToValidUTF8(s[:min(len(s), maxLine)], "")
}
