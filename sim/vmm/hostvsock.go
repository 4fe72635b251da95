package vmm

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"

	"github.com/nesim/nesim/internal/guestwire"
	"github.com/nesim/nesim/sim/vsock"

	hostvsock "github.com/mdlayher/vsock"
)

// hostVsockDevice is where the kernel's vhost-vsock is opened.
const hostVsockDevice = "/dev/vhost-vsock"

// hostHeartbeats listens on the host kernel's vsock for the heartbeats of machines that are on it and passes them to
// the switch, as if they had come to the parent: the kernel routes only CID 2, so such a guest sends its heartbeat
// there. Other listeners for its connections are ordinary AF_VSOCK programs.
type hostHeartbeats struct {
	vmm       *VMM
	listener  *hostvsock.Listener
	accepting sync.WaitGroup
}

// listenHost starts to listen, or says in one line why the host kernel's vsock cannot be used.
func listenHost(v *VMM) (*hostHeartbeats, error) {
	f, err := os.OpenFile(hostVsockDevice, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("the host kernel's vsock was asked for: %w: load its module vhost_vsock and give yourself access, or use --vsock=user", err)
	}
	f.Close()
	listener, err := hostvsock.ListenContextID(vsock.CIDHost, guestwire.HeartbeatPort, nil)
	if err != nil {
		return nil, fmt.Errorf("listen for heartbeats on the host kernel's vsock: %w: end the program that has the port, or use --vsock=user", err)
	}
	h := &hostHeartbeats{vmm: v, listener: listener}
	h.accepting.Go(h.accept)
	return h, nil
}

func (h *hostHeartbeats) close() {
	h.listener.Close()
	h.accepting.Wait()
}

func (h *hostHeartbeats) accept() {
	for {
		conn, err := h.listener.Accept()
		if err != nil {
			return
		}
		c := &parentBound{conn.(*hostvsock.Conn)}
		m := h.vmm.newest(c.RemoteAddr().(*vsock.Addr).ContextID)
		if m == nil || m.connect(context.Background(), c) != nil {
			conn.Close()
		}
	}
}

// parentBound is a connection to the host's CID that stands for one to the parent's.
type parentBound struct{ *hostvsock.Conn }

// LocalAddr is the parent's address on the port dialled.
func (c *parentBound) LocalAddr() net.Addr {
	return &vsock.Addr{ContextID: vsock.CIDParent, Port: c.Conn.LocalAddr().(*vsock.Addr).Port}
}

// dialHost connects to the guest by the host kernel's vsock.
func (m *vm) dialHost(_ context.Context, _ vsock.Addr, port uint32) (vsock.Conn, error) {
	return hostvsock.Dial(m.spec.CID, port, nil)
}
