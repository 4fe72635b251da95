package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/sim/primary/plan"
)

// endOfFile is what a terminal takes for the end of its input, VEOF of termios(3).
const endOfFile = 4

// lingering is how long output is waited for from processes that the command has left behind.
const lingering = time.Second

// session prepares the VM, runs the command, and reports.
func session() {
	var s streams
	code, err := run(&s)
	report := plan.Report{Exit: code}
	if err != nil {
		report.Error = err.Error()
	} else {
		report.Stdout, report.Stderr = s.out.written.Load(), s.err.written.Load()
	}
	if err := tell(report); err != nil {
		fmt.Fprintf(os.Stderr, "init: report %+v: %v\n", report, err)
	}
}

// tell sends a report.
func tell(r plan.Report) error {
	port, err := openPort(plan.Result, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(port.fd)
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = port.Write(append(line, '\n'))
	return err
}

// streams are the ports of the command.
type streams struct{ in, out, err *port }

func (s *streams) open() (err error) {
	if s.in, err = openPort(plan.Stdin, unix.O_RDONLY); err != nil {
		return err
	}
	if s.out, err = openPort(plan.Stdout, unix.O_WRONLY); err != nil {
		return err
	}
	s.err, err = openPort(plan.Stderr, unix.O_WRONLY)
	return err
}

func run(s *streams) (int, error) {
	raw, err := os.ReadFile(plan.File)
	if err != nil {
		return 0, err
	}
	var p plan.Plan
	if err := json.Unmarshal(raw, &p); err != nil {
		return 0, fmt.Errorf("read %s: %w", plan.File, err)
	}
	if err := prepare(&p); err != nil {
		return 0, err
	}
	raiseLoopback()
	if err := s.open(); err != nil {
		return 0, err
	}
	if err := tell(plan.Report{Ready: true}); err != nil {
		return 0, err
	}
	return runCommand(&p, s)
}

// runCommand runs the command with the ports as its standard input, output and error.
func runCommand(p *plan.Plan, s *streams) (int, error) {
	cmd := exec.Command(plan.Bin + "/sh")
	if p.Command != "" {
		cmd.Args = append(cmd.Args, "-c", p.Command)
	} else {
		cmd.Args = append(cmd.Args, "-l")
	}
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:" + plan.Bin, "HOME=/root", "USER=root"}
	if err := os.MkdirAll("/root", 0o700); err != nil {
		return 0, err
	}
	cmd.Dir = "/root"
	cmd.WaitDelay = lingering
	if p.Terminal {
		cmd.Env = append(cmd.Env, "TERM="+p.Term)
		return runOnTerminal(cmd, p, s)
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	cmd.Stdout, cmd.Stderr = s.out, s.err
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	go func() { // ends with the input, or with the VM
		_, _ = io.Copy(stdin, s.in)
		stdin.Close()
	}()
	return exitCode(cmd)
}

// runOnTerminal runs the command on a terminal of its own, whose other end is joined to the ports.
func runOnTerminal(cmd *exec.Cmd, p *plan.Plan, s *streams) (int, error) {
	master, tty, err := openTerminal(p.Rows, p.Columns)
	if err != nil {
		return 0, err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	tty.Close()
	go func() { // ends with the input, or with the VM
		_, _ = io.Copy(master, s.in)
		_, _ = master.Write([]byte{endOfFile})
	}()
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		_, _ = io.Copy(s.out, master) // ends with EIO when nobody has the terminal open
	}()
	code, err := exitCode(cmd)
	select {
	case <-shown:
	case <-time.After(lingering):
	}
	return code, err
}

// openTerminal makes a pseudoterminal (pty(7)).
func openTerminal(rows, columns uint16) (master, tty *os.File, err error) {
	if master, err = os.OpenFile("/dev/pts/ptmx", os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		return nil, nil, err
	}
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil && rows > 0 {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
	}
	if err != nil {
		return nil, nil, fmt.Errorf("make a terminal: %w", err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	return master, tty, err
}

// exitCode waits for the command's end and gives its exit code as a shell would.
func exitCode(cmd *exec.Cmd) (int, error) {
	err := cmd.Wait()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		return 0, err
	}
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return status.ExitStatus(), nil
}

// raiseLoopback brings the loopback interface up, for programs that talk to themselves over TCP.
func raiseLoopback() {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return // a kernel without IP
	}
	defer unix.Close(fd)
	lo, _ := unix.NewIfreq("lo")
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	_ = unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}
