package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// portWait bounds the wait for a port that the device has not announced yet.
const portWait = 30 * time.Second

// port is a virtio-serial port, used with system calls that block.
type port struct {
	fd      int
	written atomic.Int64 // bytes
}

// openPort opens the virtio-serial port of a name (Linux drivers/char/virtio_console.c).
func openPort(name string, mode int) (*port, error) {
	for deadline := time.Now().Add(portWait); ; time.Sleep(10 * time.Millisecond) {
		if device := findPort(name); device != "" {
			fd, err := unix.Open(device, mode|unix.O_CLOEXEC, 0)
			if err == nil {
				return &port{fd: fd}, nil
			}
			if err != unix.ENOENT || time.Now().After(deadline) {
				return nil, fmt.Errorf("open port %s: %w", name, err)
			}
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("there is no port %s", name)
		}
	}
}

func findPort(name string) (device string) {
	files, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err == nil && strings.TrimSpace(string(text)) == name {
			return "/dev/" + filepath.Base(filepath.Dir(file))
		}
	}
	return ""
}

// Read reads what there is, waiting for the first byte; the host's hanging up is the end.
func (p *port) Read(b []byte) (int, error) {
	for {
		n, err := unix.Read(p.fd, b)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// Write writes all of b.
func (p *port) Write(b []byte) (n int, err error) {
	for n < len(b) {
		m, err := unix.Write(p.fd, b[n:])
		if err != nil && err != unix.EINTR {
			return n, err
		}
		n += max(m, 0)
		p.written.Add(int64(max(m, 0)))
	}
	return n, nil
}
