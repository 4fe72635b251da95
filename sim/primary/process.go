package primary

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

	"github.com/nesim/nesim/qemu"
)

// process is a QEMU, in a process group of its own so that a terminal's signals pass it by.
type process struct {
	cmd    *exec.Cmd
	stderr *tail
	done   chan struct{} // closed when it is reaped and its output is read
}

// startProcess starts QEMU. It dies with this process, however this process dies.
func startProcess(binary string, args []string, files []*os.File, console io.Writer) (*process, error) {
	p := &process{cmd: exec.Command(binary, args...), stderr: &tail{}, done: make(chan struct{})}
	p.stderr.next = writerFunc(func(b []byte) {
		if qemu.KVMFailed(string(b)) {
			p.kill() // it would stay, with its guest stopped
		}
	})
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.ExtraFiles = console, p.stderr, files
	p.cmd.WaitDelay = 2 * time.Second
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go func() {
		// The signal is sent when the thread that started the process ends (prctl(2), PR_SET_PDEATHSIG).
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // how it ended is in ProcessState
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start QEMU: %w", err)
	}
	return p, nil
}

func (p *process) kill() { _ = p.cmd.Process.Kill() }

// end kills QEMU and waits for its end.
func (p *process) end() {
	p.kill()
	<-p.done
}

// ending tells how QEMU ended, in one line.
func (p *process) ending() string {
	for _, line := range p.stderr.lines(8) {
		if !strings.Contains(line, "warning: ") {
			return p.cmd.ProcessState.String() + ": " + line
		}
	}
	return p.cmd.ProcessState.String()
}

type writerFunc func([]byte)

func (f writerFunc) Write(b []byte) (int, error) {
	f(b)
	return len(b), nil
}

// tailSize bounds what is kept of a text, in bytes.
const tailSize = 16 << 10

// tail is a writer that keeps the end of what it is given, and passes all on.
type tail struct {
	next io.Writer // or nil

	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	t.buf = append(t.buf, b...)
	if over := len(t.buf) - tailSize; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	t.mu.Unlock()
	if t.next != nil {
		_, _ = t.next.Write(b)
	}
	return len(b), nil
}

// lines gives at most n of the last lines, without what a terminal would not show.
func (t *tail) lines(n int) (lines []string) {
	t.mu.Lock()
	text := string(t.buf)
	t.mu.Unlock()
	for line := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == '\n' || r == '\r' }) {
		line = strings.Map(func(r rune) rune {
			if r < ' ' || r > '~' {
				return -1
			}
			return r
		}, line)
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines[max(0, len(lines)-n):]
}
