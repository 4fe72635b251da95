package vmm

import (
	"context"
	"path/filepath"

	"github.com/nesim/nesim/internal/guestwire"
	"github.com/nesim/nesim/qemu"
	"github.com/nesim/nesim/qemu/vsockdev"
	"github.com/nesim/nesim/sim/vsock"
)

// serveVsock gives the machine its virtio-vsock device and joins it to the switch.
func (m *vm) serveVsock(dir string, cfg *qemu.Config) error {
	if m.vmm.cfg.HostVsock {
		cfg.VhostVsockCID = m.spec.CID
		return m.attach(vsock.EndpointFunc(m.dialHost))
	}
	cfg.VsockSocket = filepath.Join(dir, "vsock.sock")
	device := vsockdev.New(vsockdev.Config{CID: m.spec.CID, Connect: func(ctx context.Context, c *vsockdev.Conn) error {
		return m.connect(ctx, c)
	}})
	m.later(func() { device.Close() })
	if err := m.serveDevice("vsock", cfg.VsockSocket, device); err != nil {
		return err
	}
	return m.attach(vsock.EndpointFunc(func(ctx context.Context, src vsock.Addr, port uint32) (vsock.Conn, error) {
		return device.Dial(ctx, src, port)
	}))
}

// connect hands a connection that the guest opens to the switch. The one for the heartbeat shows that the guest is up.
func (m *vm) connect(ctx context.Context, conn vsock.Conn) error {
	if conn.LocalAddr().(*vsock.Addr).Port == guestwire.HeartbeatPort {
		select {
		case <-m.started:
			m.machine.Booted()
			m.spec.Loaded()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return m.vmm.cfg.Switch.Connect(ctx, conn)
}

func (m *vm) attach(e vsock.Endpoint) error {
	if err := m.vmm.cfg.Switch.Attach(m.spec.CID, e); err != nil {
		return err
	}
	m.later(func() { m.vmm.cfg.Switch.Detach(m.spec.CID) })
	return nil
}
