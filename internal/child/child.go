// Package child runs programs that do not outlive this process.
//
// A [Process] owns its program and whatever that started, in a process group of its own, so that a terminal's signals
// pass it by. One goroutine, locked to an OS thread, starts the program and reaps it: the kernel kills the program when
// the thread that started it ends (prctl(2), PR_SET_PDEATHSIG), and the Go runtime may end a thread at will. Process.mu
// is a leaf.
package child

import (
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// pipeDelay is how long the pipes of a dead program may stay open in processes that left its group.
const pipeDelay = 2 * time.Second

// Process is a program under way.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}

	mu     sync.Mutex
	reaped bool // from here on the pid may be somebody else's
}

// Start starts a program. Its output goes to stdout and stderr; files become descriptors 3 and up.
func Start(program string, args []string, files []*os.File, stdout, stderr io.Writer) (*Process, error) {
	p := &Process{cmd: exec.Command(program, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.ExtraFiles = stdout, stderr, files
	p.cmd.WaitDelay = pipeDelay
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go p.run(started)
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

func (p *Process) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	defer close(p.done)
	// While the dead leader is not reaped its number still names the group, so that what it left behind can be killed
	// without hitting a stranger.
	for unix.Waitid(unix.P_PID, p.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	p.Kill()
	p.mu.Lock()
	p.reaped = true
	p.mu.Unlock()
	_ = p.cmd.Wait() // how it ended is read from its state
}

// Kill kills the process's group; harmless after its end.
func (p *Process) Kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reaped {
		_ = unix.Kill(-p.cmd.Process.Pid, unix.SIGKILL)
	}
}

// Done is closed when the program has been reaped and its output has been read to the end.
func (p *Process) Done() <-chan struct{} { return p.done }

// State is how a program that is done ended.
func (p *Process) State() *os.ProcessState { return p.cmd.ProcessState }

// PID is the program's process ID, also after its end.
func (p *Process) PID() int { return p.cmd.Process.Pid }
