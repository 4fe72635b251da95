package primary

import (
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// link watches the connection of the vsock device, which is QEMU's to use, for its end: whoever serves the device
// serves the NE device too, and without them the VM is of no use.
type link struct {
	conn     net.Conn
	lost     atomic.Bool
	watching sync.WaitGroup
}

// watch watches file's connection, and calls lost where its other end hangs up before close is called.
func watch(file *os.File, lost func()) (*link, error) {
	conn, err := net.FileConn(file) // a duplicate
	if err != nil {
		return nil, fmt.Errorf("watch the vsock device: %w", err)
	}
	l := &link{conn: conn}
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("watch the vsock device: %w", err)
	}
	l.watching.Go(func() {
		if raw.Read(ended) == nil {
			l.lost.Store(true)
			lost()
		}
	})
	return l, nil
}

// ended reports whether a socket has come to its end, and leaves what is to be read to QEMU.
func ended(fd uintptr) bool {
	n, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return err == nil && n == 0 || err != nil && err != unix.EAGAIN && err != unix.EINTR
}

func (l *link) close() {
	l.conn.Close()
	l.watching.Wait()
}
