package instance

import (
	"context"
	"errors"
	"net"

	"github.com/nesim/nesim/qemu/vhostuser"
	"github.com/nesim/nesim/qemu/vsockdev"
	"github.com/nesim/nesim/sim/vsock"
)

// ParentVsock is the vsock device of a primary VM, which is the parent, CID 3, while it runs: its listeners hear the
// enclaves, and it dials them and their consoles. Listeners of this process on CID 3 come first, port by port.
//
// There is one parent at a time: while a primary VM runs, RunEnclave is refused, and the other way round. Otherwise
// two would listen for heartbeats on one port.
type ParentVsock struct {
	instance *Instance
	device   *vsockdev.Device
}

// AttachParent makes the device and puts it on the switch. Its owner must call Serve.
func (i *Instance) AttachParent() (*ParentVsock, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case i.closed:
		return nil, errEnding
	case i.parentVM:
		return nil, errors.New("a primary VM runs already: an instance has one")
	case len(i.enclaves) > 0:
		return nil, errors.New("enclaves run whose parent is the daemon: nesim terminate-enclave --all ends them")
	}
	p := &ParentVsock{instance: i}
	p.device = vsockdev.New(vsockdev.Config{CID: vsock.CIDParent, Connect: func(ctx context.Context, c *vsockdev.Conn) error {
		return i.net.Connect(ctx, c)
	}})
	err := i.net.Attach(vsock.CIDParent, vsock.EndpointFunc(p.dial))
	if err != nil {
		p.device.Close()
		return nil, err
	}
	i.parentVM = true
	return p, nil
}

// dial connects to a port of the primary VM. Who dials from the parent's own CID in this process does it as the host,
// CID 2: a guest does not answer its own CID.
func (p *ParentVsock) dial(ctx context.Context, src vsock.Addr, port uint32) (vsock.Conn, error) {
	if src.ContextID == vsock.CIDParent {
		src.ContextID = vsock.CIDHost
	}
	return p.device.Dial(ctx, src, port)
}

// Serve serves the device by vhost-user to the QEMU behind conn, which it owns, until that hangs up or ctx ends. A nil
// conn is one that has failed. Then the device is gone, and so is the parent.
func (p *ParentVsock) Serve(ctx context.Context, conn *net.UnixConn) (err error) {
	if conn != nil {
		err = vhostuser.ServeConn(ctx, conn, p.device)
	}
	p.instance.net.Detach(vsock.CIDParent)
	p.device.Close()
	p.instance.mu.Lock()
	p.instance.parentVM = false
	p.instance.mu.Unlock()
	return err
}

// errParentVM refuses an enclave whose parent would be the daemon.
var errParentVM = errors.New("a primary VM is the parent: run enclaves in it, or end it first")
