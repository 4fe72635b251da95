package main

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/vsock"
	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/eif"
	"github.com/nesim/nesim/qemu"
	"github.com/nesim/nesim/qemu/setup"
	"github.com/nesim/nesim/qemu/vhostuser"
	"github.com/nesim/nesim/qemu/vsockdev"
)

// BenchmarkRunEnclave compares the time from run-enclave to its return, at the heartbeat, with that of the same QEMU
// booting the same kernel and ramdisks by hand to the same point. Both go by TCG, in turn.
func BenchmarkRunEnclave(b *testing.B) {
	b.Setenv("NESIM_ACCEL", "tcg")
	u := newUser(b)
	hand := newHandBoot(b, u.hello())
	u.runHello() // starts the daemon
	u.must("terminate-enclave", "--all")
	var run, byHand time.Duration
	for b.Loop() {
		start := time.Now()
		u.runHello("--enclave-cid", "16")
		run += time.Since(start)
		u.must("terminate-enclave", "--all")

		byHand += hand.toHeartbeat(b)
	}
	b.ReportMetric(run.Seconds()/float64(b.N), "run-enclave-s")
	b.ReportMetric(byHand.Seconds()/float64(b.N), "by-hand-s")
	b.ReportMetric(run.Seconds()/byHand.Seconds(), "ratio")
	b.ReportMetric(0, "ns/op")
}

// handBoot is an image taken apart for a QEMU without nesim.
type handBoot struct {
	qemu, kernel, initrd, cmdline string
}

func newHandBoot(b *testing.B, path string) *handBoot {
	f, err := os.Open(path)
	require.NoError(b, err)
	defer f.Close()
	info, err := f.Stat()
	require.NoError(b, err)
	image, err := eif.Open(f, info.Size())
	require.NoError(b, err)
	cmdline, err := image.Cmdline()
	require.NoError(b, err)
	program, err := setup.FindQEMU(b.Context())
	require.NoError(b, err)

	dir := b.TempDir()
	write := func(name string, parts ...*io.SectionReader) string {
		path := filepath.Join(dir, name)
		f, err := os.Create(path)
		require.NoError(b, err)
		defer f.Close()
		for _, part := range parts {
			_, err := io.Copy(f, part)
			require.NoError(b, err)
		}
		return path
	}
	return &handBoot{program.Path, write("kernel", image.Kernel()), write("initrd", image.Ramdisks()...), cmdline}
}

// toHeartbeat boots the machine and returns the time from its start to the answered heartbeat.
func (h *handBoot) toHeartbeat(b *testing.B) time.Duration {
	socket := filepath.Join(b.TempDir(), "vsock")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	require.NoError(b, err)
	heard := make(chan error, 1)
	device := vsockdev.New(vsockdev.Config{CID: 16, Connect: func(_ context.Context, c *vsockdev.Conn) error {
		if c.LocalAddr().(*vsock.Addr).Port != 9000 {
			return errors.New("nobody listens")
		}
		go func() {
			_, err := io.CopyN(c, c, 1)
			heard <- err
			c.Close()
		}()
		return nil
	}})
	ctx, cancel := context.WithCancel(b.Context())
	var serving sync.WaitGroup
	serving.Go(func() { _ = vhostuser.Serve(ctx, listener, device) })
	defer func() {
		cancel()
		listener.Close()
		device.Close()
		serving.Wait()
	}()

	start := time.Now()
	machine := exec.Command(h.qemu, "-M", "microvm,memory-backend=mem", "-global", "virtio-mmio.force-legacy=false",
		"-object", "memory-backend-memfd,id=mem,size=256M,share=on", "-m", "256M", "-smp", "2", "-accel", "tcg", "-cpu", "max",
		"-nodefaults", "-no-user-config", "-nographic", "-serial", "stdio", "-no-reboot", "-device", "i8042",
		"-kernel", h.kernel, "-initrd", h.initrd, "-append", strings.TrimSpace(h.cmdline+" "+qemu.TCGCmdline()),
		"-chardev", "socket,id=v,path="+socket, "-device", "vhost-user-vsock-device,chardev=v")
	require.NoError(b, machine.Start())
	defer func() {
		_ = machine.Process.Kill()
		_ = machine.Wait()
	}()
	select {
	case err = <-heard:
	case <-time.After(limit):
		err = errors.New("no heartbeat")
	}
	require.NoError(b, err)
	return time.Since(start)
}
