package vsock

import (
	"context"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// HungUp returns when the peer of a connection has closed it in both directions, when it was reset, or when ctx ends; it
// reports whether the peer has gone. What the peer sent before can still be read. A peer that has only closed its own
// direction may still be reading: it has not hung up.
//
// It works for a connection with a method Gone() <-chan struct{}, as those of package vsockdev and of this one have, and
// for one with a descriptor, or with a method Underlying() Conn that returns such a one. Of any other nothing is known until it is read or written, and HungUp waits for ctx.
func HungUp(ctx context.Context, c Conn) bool {
	for {
		outer, ok := c.(interface{ Underlying() Conn })
		if !ok {
			break
		}
		c = outer.Underlying()
	}
	var gone <-chan struct{}
	switch c := c.(type) {
	case interface{ Gone() <-chan struct{} }:
		gone = c.Gone()
	case syscall.Conn:
		return pollHangUp(ctx, c)
	}
	select {
	case <-gone:
		return true
	case <-ctx.Done():
		return false
	}
}

// pollHangUp is HungUp for a descriptor. The kernel reports a hang-up (EPOLLHUP) unasked, and nothing else was asked for,
// so that data does not wake anybody. The epoll descriptor waits in the runtime's own poller, which takes no thread.
func pollHangUp(ctx context.Context, c syscall.Conn) bool {
	never := func() bool { <-ctx.Done(); return false }
	raw, err := c.SyscallConn()
	if err != nil {
		return never()
	}
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return never() // out of descriptors
	}
	if err := unix.SetNonblock(epfd, true); err != nil {
		unix.Close(epfd)
		return never()
	}
	poller := os.NewFile(uintptr(epfd), "epoll")
	defer poller.Close()
	added := raw.Control(func(fd uintptr) { err = unix.EpollCtl(epfd, unix.EPOLL_CTL_ADD, int(fd), &unix.EpollEvent{}) })
	if added != nil {
		return true // it is closed
	}
	waiting, failed := poller.SyscallConn()
	if err != nil || failed != nil {
		return never()
	}
	defer context.AfterFunc(ctx, func() { poller.Close() })()
	hungUp := false
	err = waiting.Read(func(fd uintptr) bool {
		var event [1]unix.EpollEvent
		n, err := unix.EpollWait(int(fd), event[:], 0)
		hungUp = n > 0
		return hungUp || err != nil && err != unix.EINTR
	})
	if err == nil && !hungUp {
		return never()
	}
	return hungUp
}
