package simtest

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"regexp"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/internal/guestwire"
	"github.com/nesim/nesim/sim/hypervisor"
	"github.com/nesim/nesim/sim/nedriver"
	"github.com/nesim/nesim/sim/vsock"
)

// Enclave is an enclave that has been run. Its methods that expect something fail the test where it does not come.
type Enclave struct {
	*nedriver.Enclave // the parent's file of it
	Name              string

	i      *Instance
	cid    uint32
	memory *nedriver.Mapping
}

// CID is the enclave's context id.
func (e *Enclave) CID() uint32 { return e.cid }

// Dial connects the parent to a port of the enclave, waiting until somebody listens there. Close the connection.
func (e *Enclave) Dial(port uint32) vsock.Conn {
	e.i.t.Helper()
	for end := time.Now().Add(Patience); ; time.Sleep(50 * time.Millisecond) {
		conn, err := e.dial(port)
		switch {
		case err == nil:
			return conn
		case !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.ECONNREFUSED):
			e.i.t.Fatalf("%s: %v", e.Name, err)
		case time.Now().After(end):
			e.i.t.Fatalf("%s: nobody listens on port %d: %v", e.Name, port, err)
		}
	}
}

func (e *Enclave) dial(port uint32) (vsock.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	return e.i.Net.Dial(ctx, vsock.Addr{ContextID: vsock.CIDParent}, vsock.Addr{ContextID: e.cid, Port: port})
}

// Call gives the hello workload a command, such as "env", "exit 3", "panic" or "hang", and returns its answer.
func (e *Enclave) Call(command string) string {
	e.i.t.Helper()
	conn := e.Dial(guestwire.ControlPort)
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(Patience))
	if _, err := io.WriteString(conn, command+"\n"); err != nil {
		e.i.t.Fatalf("%s: call %q: %v", e.Name, command, err)
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		e.i.t.Fatalf("%s: call %q: %v", e.Name, command, err)
	}
	return strings.TrimSuffix(answer, "\n")
}

// ExpectConsole waits until the enclave's console shows what the regular expression matches, and returns that.
func (e *Enclave) ExpectConsole(pattern string) string {
	e.i.t.Helper()
	wanted, err := regexp.Compile(pattern)
	if err != nil {
		e.i.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	text, err := e.i.Console(ctx, e.SlotUID(), wanted.MatchString)
	if err != nil {
		e.i.t.Fatalf("%s: nothing on its console matches %q; it ends with:\n%s", e.Name, pattern, text[max(0, len(text)-500):])
	}
	return wanted.FindString(text)
}

// ExpectExit waits for the end of the enclave's machine.
func (e *Enclave) ExpectExit(why hypervisor.ExitReason) hypervisor.Exit {
	e.i.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	exit, err := e.i.Exit(ctx, e.SlotUID())
	if err != nil {
		e.i.t.Fatalf("%s: it has not ended: %v", e.Name, err)
	}
	if exit.Reason != why {
		e.i.t.Fatalf("%s: its end is %v, not %v", e.Name, exit, why)
	}
	return exit
}

// ExpectHangUp waits until the parent's file hangs up: what a parent sees of an end that it has not asked for.
func (e *Enclave) ExpectHangUp() {
	e.i.t.Helper()
	select {
	case <-e.Done():
	case <-time.After(Patience):
		e.i.t.Fatalf("%s: its file has not hung up", e.Name)
	}
	if e.Poll() != unix.POLLHUP {
		e.i.t.Fatalf("%s: its file has not hung up: %v", e.Name, e.Err())
	}
}

// ExpectRunning expects that the parent has heard of no end.
func (e *Enclave) ExpectRunning() {
	e.i.t.Helper()
	if err := e.Err(); err != nil {
		e.i.t.Fatalf("%s: it has ended: %v", e.Name, err)
	}
}

// Terminate ends the enclave and expects its memory to come back, zeroed.
func (e *Enclave) Terminate() {
	e.i.t.Helper()
	if err := e.Close(); err != nil {
		e.i.t.Fatalf("terminate %s: %v", e.Name, err)
	}
	if kept, err := e.memory.Stored(); err != nil || kept != 0 {
		e.i.t.Fatalf("terminate %s: its memory came back with %d bytes in it, %v", e.Name, kept, err)
	}
	e.abandon()
}

// abandon gives back what the enclave has, whatever state it is in.
func (e *Enclave) abandon() {
	if err := e.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		e.i.t.Logf("close %s: %v", e.Name, err)
	}
	if e.memory != nil {
		e.memory.Close()
	}
}

// Kill kills the enclave's VMM, as from outside.
func (e *Enclave) Kill() { e.signal(syscall.SIGKILL) }

// Freeze stops the enclave's VMM, and Thaw lets it go on.
func (e *Enclave) Freeze() { e.signal(syscall.SIGSTOP) }

// Thaw undoes Freeze.
func (e *Enclave) Thaw() { e.signal(syscall.SIGCONT) }

func (e *Enclave) signal(s syscall.Signal) {
	e.i.t.Helper()
	if err := e.i.Stage.Kill(e.SlotUID(), s); err != nil {
		e.i.t.Fatalf("%s: %v", e.Name, err)
	}
}
