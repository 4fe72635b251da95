package vfiouser

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// Interrupt is an eventfd for one vector of a Client's device, with a Wait that
// also sees the server go.
type Interrupt struct {
	fd   int // the eventfd
	sock int // a descriptor of the connection of its own, to see it end
	wake int // an eventfd that ends a wait

	wait   sync.Mutex // one waiter at a time; held before mu
	mu     sync.Mutex // guards closed, and the descriptors against Close
	closed bool
}

// NewInterrupt makes an eventfd, which is armed by SetIRQs(..., FD()).
func (c *Client) NewInterrupt() (*Interrupt, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return nil, c.err
	}
	i := &Interrupt{fd: -1, sock: -1, wake: -1}
	var err error
	if i.fd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err == nil {
		if i.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err == nil {
			i.sock, err = unix.FcntlInt(uintptr(c.st.fd), unix.F_DUPFD_CLOEXEC, 0)
		}
	}
	if err != nil {
		i.Close()
		return nil, fmt.Errorf("interrupt: %w", err)
	}
	return i, nil
}

// FD returns the eventfd, good until Close.
func (i *Interrupt) FD() int { return i.fd }

// Wait returns nil when the vector has been raised since the last Wait, ErrClosed
// when the connection or i is closed, or ctx's error. A raised vector is reported
// before either.
func (i *Interrupt) Wait(ctx context.Context) error {
	i.wait.Lock()
	defer i.wait.Unlock()
	if ctx.Done() != nil {
		defer context.AfterFunc(ctx, i.interrupt)()
	}
	if i.isClosed() {
		return ErrClosed
	}
	fds := [3]unix.PollFd{
		{Fd: int32(i.fd), Events: unix.POLLIN},
		{Fd: int32(i.wake), Events: unix.POLLIN},
		{Fd: int32(i.sock), Events: unix.POLLRDHUP},
	}
	var count [8]byte
	for {
		if _, err := unix.Poll(fds[:], -1); err == unix.EINTR {
			continue
		} else if err != nil {
			return fmt.Errorf("wait for an interrupt: %w", err)
		}
		if fds[0].Revents != 0 {
			if _, err := unix.Read(i.fd, count[:]); err == nil {
				return nil
			}
		}
		if fds[1].Revents != 0 {
			unix.Read(i.wake, count[:])
		}
		switch {
		case i.isClosed(), fds[2].Revents != 0:
			return ErrClosed
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
}

func (i *Interrupt) isClosed() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.closed
}

// interrupt ends a Wait under way.
func (i *Interrupt) interrupt() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.closed {
		signal(i.wake)
	}
}

// Close ends a Wait under way and closes the eventfd.
func (i *Interrupt) Close() error {
	i.mu.Lock()
	if i.closed {
		i.mu.Unlock()
		return nil
	}
	i.closed = true
	signal(i.wake)
	i.mu.Unlock()
	i.wait.Lock() // until the waiter has left
	defer i.wait.Unlock()
	closeFD(i.fd)
	closeFD(i.wake)
	closeFD(i.sock)
	return nil
}
