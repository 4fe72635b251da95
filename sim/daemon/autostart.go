package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/nesim/nesim/sim/errcode"
)

// startPatience bounds the wait for a daemon that has been started.
const startPatience = 30 * time.Second

// Ensure returns a client for dir whose daemon answers, starting one in the background by the command args (the
// program and its arguments) where none does. Two at once start one daemon: the second finds the first's lock.
func Ensure(ctx context.Context, dir string, args ...string) (*Client, error) {
	c := NewClient(dir)
	_, err := c.About(ctx)
	if absent := (*NotRunningError)(nil); !errors.As(err, &absent) {
		return c, err
	}
	if err := makePrivate(dir); err != nil {
		return nil, errcode.Wrap(errcode.ReadFromDiskFailure, err)
	}
	pid, exited, err := startDetached(dir, args)
	if err != nil {
		return nil, err
	}
	return c, c.awaitStart(ctx, pid, exited)
}

// startDetached starts the daemon in a session of its own. The returned channel gets its end, if that comes first.
func startDetached(dir string, args []string) (pid int, exited <-chan error, err error) {
	log, err := os.OpenFile(filepath.Join(dir, logName), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return 0, nil, fmt.Errorf("open the daemon's log: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return 0, nil, errcode.New(errcode.ProcessSpawnFailure, "start the daemon: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // ends with the daemon or with this process, whichever is first
	return cmd.Process.Pid, ended, nil
}

// awaitStart waits until the daemon that was started answers, or has ended because another's was faster. It does not
// return before: a daemon that is still starting would take the folder once the other has been shut down.
func (c *Client) awaitStart(ctx context.Context, pid int, exited <-chan error) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return errcode.New(errcode.ProcessSpawnFailure, "the daemon did not answer: its log is %s", filepath.Join(c.dir, logName))
		case <-exited:
			// Another's daemon may have won; one more look tells.
			if err := c.awaitOther(ctx); err != nil {
				return errcode.New(errcode.ProcessSpawnFailure, "the daemon did not start: %s", lastLine(filepath.Join(c.dir, logName)))
			}
			return nil
		case <-poll.C:
			if about, err := c.About(ctx); err == nil && about.PID == pid {
				return nil
			}
		}
	}
}

// awaitOther waits a moment for the daemon of another process, which held the lock and may not listen yet.
func (c *Client) awaitOther(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		_, err := c.About(ctx)
		if err == nil {
			return nil
		}
		held, lockErr := lock(c.dir)
		if lockErr == nil {
			held.Close()
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// lastLine gives the last line of the log, which tells why the daemon ended.
func lastLine(path string) string {
	raw, err := os.ReadFile(path)
	if err != nil || len(raw) == 0 {
		return "it left no word in " + path
	}
	lines := bytes.Split(bytes.TrimSpace(raw), []byte("\n"))
	return string(lines[len(lines)-1])
}
