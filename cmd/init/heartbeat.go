package main

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/internal/guestwire"
)

// parentCID is the parent's CID (VSOCK_CID of AWS's init.c).
const parentCID = 3

// connectTime is how long a connect may take before the other CID is tried. A parent that is there answers in
// milliseconds, and one that does not listen resets at once.
const connectTime = time.Second

// heartbeat tells the parent that the enclave is up and returns the parent's CID. It is CID 3, as on Nitro; a vsock
// served by the host's kernel (vhost-vsock) delivers to CID 2 alone and drops the rest without an answer, so CID 2 is
// tried when CID 3 stays silent.
func heartbeat() (cid uint32, err error) {
	for _, cid = range []uint32{parentCID, unix.VMADDR_CID_HOST, parentCID, unix.VMADDR_CID_HOST} {
		if err = heartbeatTo(cid); !errors.Is(err, unix.ETIMEDOUT) {
			break
		}
	}
	if err != nil {
		return 0, fmt.Errorf("heartbeat to CID %d port %d: %w", cid, guestwire.HeartbeatPort, err)
	}
	return cid, nil
}

func heartbeatTo(cid uint32) error {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open vsock: %w", err)
	}
	defer unix.Close(fd)
	limit := unix.NsecToTimeval(connectTime.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.AF_VSOCK, unix.SO_VM_SOCKETS_CONNECT_TIMEOUT, &limit); err != nil {
		return fmt.Errorf("limit connect: %w", err)
	}
	if err := connect(fd, &unix.SockaddrVM{CID: cid, Port: guestwire.HeartbeatPort}); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if _, err := unix.Write(fd, []byte{guestwire.Heartbeat}); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	var answer [1]byte
	switch n, err := unix.Read(fd, answer[:]); {
	case err != nil:
		return fmt.Errorf("receive: %w", err)
	case n == 0:
		return errors.New("closed without an answer")
	case answer[0] != guestwire.Heartbeat:
		return fmt.Errorf("answered with byte %#x instead of %#x", answer[0], guestwire.Heartbeat)
	}
	return nil
}

// connect connects a non-blocking socket, and makes it a blocking one. A blocking connect with a time limit would be
// given up at the first signal, of which Go's runtime sends its own threads some, and the parent would see a reset.
func connect(fd int, to unix.Sockaddr) error {
	err := unix.Connect(fd, to)
	for err == unix.EINPROGRESS || err == unix.EINTR {
		if _, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, -1); err != nil {
			continue
		}
		errno, failed := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err = failed; err == nil && errno != 0 {
			err = unix.Errno(errno)
		}
	}
	if err != nil {
		return err
	}
	return unix.SetNonblock(fd, false)
}

// raiseLoopback brings the loopback interface up, for workloads that talk to themselves over TCP.
func raiseLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil // a kernel without IP
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("bring up loopback: %w", err)
	}
	return nil
}
