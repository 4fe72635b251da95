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

	"github.com/nesim/nesim/internal/private"
	"github.com/nesim/nesim/sim/errcode"
)

// startPatience bounds the wait for a daemon that has been started.
const startPatience = 30 * time.Second

// maxLastLine bounds the log's last line in an error, in bytes.
const maxLastLine = 4 << 10

// Ensure returns a client for dir whose daemon answers, starting one in the background by the command args (the
// program and its arguments) where none does. Two at once start one daemon: the second finds the first's lock.
func Ensure(ctx context.Context, dir string, args ...string) (*Client, error) {
	c := NewClient(dir)
	_, err := c.About(ctx)
	if absent := (*NotRunningError)(nil); !errors.As(err, &absent) {
		return c, err
	}
	folder, err := makePrivate(dir)
	if err != nil {
		return nil, errcode.Wrap(errcode.ReadFromDiskFailure, err)
	}
	defer folder.Close()
	pid, exited, err := startDetached(folder, args)
	if err != nil {
		return nil, err
	}
	return c, c.awaitStart(ctx, folder, pid, exited)
}

// startDetached starts the daemon in a session of its own. The returned channel gets its end, if that comes first.
func startDetached(dir *private.Dir, args []string) (pid int, exited <-chan error, err error) {
	log, err := dir.OpenFile(logName, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
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
func (c *Client) awaitStart(ctx context.Context, folder *private.Dir, pid int, exited <-chan error) error {
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
			if err := c.awaitOther(ctx, folder); err != nil {
				return errcode.New(errcode.ProcessSpawnFailure, "the daemon did not start: %s", lastLine(folder))
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
func (c *Client) awaitOther(ctx context.Context, folder *private.Dir) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		_, err := c.About(ctx)
		if err == nil {
			return nil
		}
		if running, lockErr := held(folder); lockErr != nil || !running {
			return errors.Join(err, lockErr)
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// lastLine returns the last line of the log, which says why the daemon ended.
func lastLine(dir *private.Dir) string {
	path := filepath.Join(dir.Path(), logName)
	f, err := dir.OpenFile(logName, os.O_RDONLY, 0)
	if err != nil {
		return "it left no word in " + path
	}
	defer f.Close()
	raw := make([]byte, maxLastLine)
	info, err := f.Stat()
	if err != nil {
		return "it left no word in " + path
	}
	n, _ := f.ReadAt(raw, max(0, info.Size()-maxLastLine))
	lines := bytes.Split(bytes.TrimSpace(raw[:n]), []byte("\n"))
	if last := lines[len(lines)-1]; len(last) > 0 {
		return string(last)
	}
	return "it left no word in " + path
}
