package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// conn is a connected vsock socket. Being a file in non-blocking mode it waits in the runtime's poller, so that a
// thousand idle connections cost no threads.
type conn struct{ *os.File }

// deliver closes the connection and waits, a second at most, until the peer has got all that was written to it.
func (c *conn) deliver() {
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 1})
		})
	}
	c.Close()
}

// listener is a listening vsock socket.
type listener int

// backlog is how many connections may wait to be accepted (the kernel's SOMAXCONN of old).
const backlog = 128

func listen(port uint32) (listener, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open vsock: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: port}); err != nil {
		return 0, fmt.Errorf("bind vsock port %d: %w", port, err)
	}
	if err := unix.Listen(fd, backlog); err != nil {
		return 0, fmt.Errorf("listen on vsock port %d: %w", port, err)
	}
	return listener(fd), nil
}

// serve hands every connection to handle in a goroutine of its own, and closes it afterwards. It ends the program when
// the listener fails.
func (l listener) serve(handle func(*conn)) {
	for {
		fd, _, err := unix.Accept4(int(l), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch err {
		case nil:
		case unix.EINTR, unix.ECONNABORTED:
			continue
		default:
			fmt.Println("hello: accept:", err)
			os.Exit(1)
		}
		go func() {
			c := &conn{os.NewFile(uintptr(fd), "vsock")}
			defer c.Close()
			handle(c)
		}()
	}
}
