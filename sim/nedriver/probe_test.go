package nedriver

import (
	"context"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/pcidev"
	"github.com/nesim/nesim/pcidev/vfiouser"
)

// strangeDevice is a PCI device of plain memory, whose register stuck cannot be written.
type strangeDevice struct {
	config  []byte
	barSize uint64
	vectors int
	stuck   uint64
	bar     [pcidev.BARSize]byte
}

func (d *strangeDevice) Regions() (regions [vfiouser.NumRegions]vfiouser.Region) {
	const rw = vfiouser.RegionFlagRead | vfiouser.RegionFlagWrite
	regions[pcidev.BAR] = vfiouser.Region{Size: d.barSize, Flags: rw}
	regions[vfiouser.RegionConfig] = vfiouser.Region{Size: pcidev.ConfigSize, Flags: rw}
	return regions
}

func (d *strangeDevice) RegionRead(region uint32, off uint64, p []byte) error {
	if region == vfiouser.RegionConfig {
		copy(p, d.config[off:])
	} else {
		copy(p, d.bar[off:])
	}
	return nil
}

func (d *strangeDevice) RegionWrite(region uint32, off uint64, p []byte) error {
	if region == pcidev.BAR && off != d.stuck {
		copy(d.bar[off:], p)
	}
	return nil
}

func (d *strangeDevice) Reset() error { return nil }

// offer serves d to one client.
func offer(t *testing.T, d *strangeDevice) (socket string) {
	socket = filepath.Join(t.TempDir(), "pci")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	require.NoError(t, err)
	var server sync.WaitGroup
	server.Go(func() {
		defer l.Close()
		if conn, err := l.AcceptUnix(); err == nil {
			s := vfiouser.Server{Device: d, DMA: new(vfiouser.DMA), IRQs: vfiouser.NewIRQs(d.vectors)}
			s.Serve(context.Background(), conn)
		}
	})
	t.Cleanup(server.Wait)
	return socket
}

func TestDevicesThatAreNotTheNEDevice(t *testing.T) {
	ids := []byte{0x0f, 0x1d, 0xc1, 0xe4}
	for name, c := range map[string]struct {
		device strangeDevice
		want   unix.Errno
		text   string
	}{
		"another device":          {strangeDevice{config: []byte{0xf4, 0x1a, 0x41, 0x10}, barSize: 0x4000, vectors: 2, stuck: 99}, unix.ENODEV, "1af4:1041"},
		"no registers":            {strangeDevice{config: ids, barSize: 0x100, vectors: 2, stuck: 99}, unix.ENOMEM, "256 bytes"},
		"one vector":              {strangeDevice{config: ids, barSize: 0x4000, vectors: 1, stuck: 99}, unix.ENOSPC, "1 MSI-X vectors"},
		"another version":         {strangeDevice{config: ids, barSize: 0x4000, vectors: 2, stuck: pcidev.NEVersion}, unix.EIO, "version 1"},
		"will not be switched on": {strangeDevice{config: ids, barSize: 0x4000, vectors: 2, stuck: pcidev.NEEnable}, unix.EIO, "switch on"},
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			host, err := NewHost(HostConfig{})
			require.NoError(t, err)
			c.device.config = append(c.device.config, make([]byte, pcidev.ConfigSize-4)...)
			_, err = Load(context.Background(), host, offer(t, &c.device))
			requireErrno(t, c.want, err)
			require.Contains(t, err.Error(), c.text)
		})
	}
}

func TestDeviceThatNeverAnswersTimesOut(t *testing.T) {
	noLeaks(t)
	host, err := NewHost(HostConfig{Topology: Topology{CPUs: 4}})
	require.NoError(t, err)
	silent := &strangeDevice{config: make([]byte, pcidev.ConfigSize), barSize: pcidev.BARSize, vectors: 2, stuck: 99}
	copy(silent.config, []byte{0x0f, 0x1d, 0xc1, 0xe4})
	driver, err := Load(context.Background(), host, offer(t, silent))
	require.NoError(t, err)
	defer driver.Close()
	require.NoError(t, driver.SetCPUs("2-3"))
	driver.dev.(*pci).timeout = 30 * time.Millisecond
	_, err = driver.Open(host.NewProcess()).CreateVM()
	requireErrno(t, unix.ETIMEDOUT, err)
	require.Contains(t, err.Error(), "SLOT_ALLOC")
}
