package vmm

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/nesim/nesim/internal/private"
	"github.com/nesim/nesim/qemu"
	"github.com/nesim/nesim/qemu/nsmdev"
	"github.com/nesim/nesim/qemu/vhostuser"
)

// serveNSM gives the machine its Nitro Secure Module, where it is to have one.
func (m *vm) serveNSM(dir string, cfg *qemu.Config) error {
	if m.vmm.cfg.NSM == nil {
		return nil
	}
	answer, err := m.vmm.cfg.NSM(m.spec)
	if err != nil || answer == nil {
		return err
	}
	cfg.NSMSocket = filepath.Join(dir, "nsm.sock")
	return m.serveDevice("NSM", cfg.NSMSocket, nsmdev.New(answer))
}

// serveDevice serves a device of the machine to its QEMU until the machine ends.
func (m *vm) serveDevice(name, socket string, device vhostuser.Device) error {
	listener, err := private.Listen(socket)
	if err != nil {
		return fmt.Errorf("serve the %s device: %w", name, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := vhostuser.Serve(ctx, listener, device); err != nil && ctx.Err() == nil {
			m.vmm.cfg.Log.Warn(name+" device failed", "cid", m.spec.CID, "error", err)
		}
	})
	m.later(func() {
		cancel()
		listener.Close()
		serving.Wait()
	})
	return nil
}
