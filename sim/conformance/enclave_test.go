package conformance

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/sim/instance"
	"github.com/nesim/nesim/sim/primary"
	"github.com/nesim/nesim/sim/vsock"
)

// startInstance starts a simulated instance, of which nothing may be left at the test's end.
func startInstance(t *testing.T, dir string) *instance.Instance {
	before := runtime.NumGoroutine()
	var log lockedBuffer
	cfg := instance.Config{Dir: filepath.Join(dir, "vm"), PCISocket: filepath.Join(dir, "pci.sock"), Accel: "tcg", Log: quietLog(&log)}
	i, err := instance.Start(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, i.Close())
		if !eventually(func() bool { return runtime.NumGoroutine() <= before }, 20*time.Second) {
			stacks := make([]byte, 1<<20)
			t.Errorf("goroutines are left:\n%s", stacks[:runtime.Stack(stacks, true)])
		}
		left, err := os.ReadDir(cfg.Dir)
		require.NoError(t, err)
		require.Empty(t, left, "sockets of machines are left")
		if t.Failed() {
			t.Logf("the instance's log:\n%s", log.String())
		}
	})
	return i
}

// eventually waits until something is so.
func eventually(is func() bool, limit time.Duration) bool {
	for end := time.Now().Add(limit); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// vsockOf gives a primary VM its vsock device on the instance, as the daemon does.
func vsockOf(t *testing.T, i *instance.Instance) func(context.Context) (*os.File, error) {
	var serving sync.WaitGroup
	t.Cleanup(serving.Wait) // after the primary VM's own
	return func(context.Context) (*os.File, error) {
		device, err := i.AttachParent()
		require.NoError(t, err)
		listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: "@" + t.Name(), Net: "unix"})
		require.NoError(t, err)
		defer listener.Close()
		ours, err := net.DialUnix("unix", nil, listener.Addr().(*net.UnixAddr))
		require.NoError(t, err)
		defer ours.Close()
		theirs, err := listener.AcceptUnix()
		require.NoError(t, err)
		serving.Go(func() { _ = device.Serve(context.Background(), theirs) })
		return ours.File()
	}
}

// ask sends a line to a port of an enclave, from outside the primary VM, and returns the answer.
func ask(t *testing.T, i *instance.Instance, cid, port uint32, line string) string {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	conn, err := i.AwaitVsock(ctx, cid, port)
	require.NoError(t, err)
	defer conn.Close()
	_, err = conn.Write([]byte(line + "\n"))
	require.NoError(t, err)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(limit)))
	b := make([]byte, 256)
	n, _ := conn.Read(b)
	return strings.TrimSpace(string(b[:n]))
}

// TestEnclavesOfAPrimaryVM boots a primary VM whose enclaves are machines.
func TestEnclavesOfAPrimaryVM(t *testing.T) {
	dir := tempDir(t)
	i := startInstance(t, dir)
	v := boot(t, primary.Config{
		PCISocket: filepath.Join(dir, "pci.sock"), Vsock: vsockOf(t, i), CPUs: 6, MemoryMiB: 4096, HugeMiB: 640, HugeGiB: 1, BehindPort: true,
	}, buildGuest(t, dir), buildSample(t, dir), buildHello(t, dir))
	v.must(t, "true") // it is up

	t.Run("the instance has one parent", func(t *testing.T) {
		_, err := i.AttachParent()
		require.ErrorContains(t, err, "a primary VM runs already")
		_, err = i.RunEnclave(t.Context(), instance.RunSpec{EIFPath: filepath.Join(dir, "hello.eif"), CPUCount: 2, MemoryMiB: 256}, func(string) {})
		require.ErrorContains(t, err, "run enclaves in it")
	})
	t.Run("the kernel's sample", func(t *testing.T) {
		sample := v.start(t, "echo '# ne_ioctl_sample hello.eif' && exec /root/guest tty /root/ne_ioctl_sample /root/hello.eif")
		sample.says("Entering sleep")
		require.Contains(t, ask(t, i, 16, 5006, "exit 3"), "exit")
		sample.says("Received POLLHUP")
		v.must(t, "killall ne_ioctl_sample")
		_, text := sample.wait()
		record(t, "ne_ioctl_sample.txt", v.must(t, "uname -a; modinfo -F version nitro_enclaves 2>/dev/null; lsmod")+strings.ReplaceAll(text, "\r", ""))
	})
	t.Run("the driver is unloaded and loaded again", func(t *testing.T) {
		v.must(t, "rmmod nitro_enclaves && test ! -e /dev/nitro_enclaves && grep -q 0-5 /sys/devices/system/cpu/online")
		v.must(t, "insmod /.nesim/modules/nitro_enclaves.ko ne_cpus=2-5 && test -e /dev/nitro_enclaves && grep -q 0-1 /sys/devices/system/cpu/online")
		require.Contains(t, v.must(t, "/root/guest latency 20"), "SLOT_ALLOC")
	})
	t.Run("the driver is unbound and bound again", func(t *testing.T) {
		v.must(t, "cd /sys/bus/pci/drivers/nitro_enclaves && d=$(echo 0000:*) && echo $d >unbind && test ! -e /dev/nitro_enclaves && echo $d >bind && test -e /dev/nitro_enclaves")
		v.must(t, "echo 2-5 >/sys/module/nitro_enclaves/parameters/ne_cpus")
		require.Contains(t, v.must(t, "/root/guest latency 20"), "SLOT_ALLOC")
	})
	t.Run("donated memory", func(t *testing.T) {
		record(t, "memory.txt", v.must(t, "/root/guest memory /root/hello.eif 18"))
	})

	v.must(t, "ln -s guest /root/runner") // a name to kill it by
	two := v.start(t, "/root/runner run /root/hello.eif 21 22")
	two.says("heartbeat 21")
	two.says("heartbeat 22")
	t.Run("vsock of the primary VM", func(t *testing.T) {
		for _, cid := range []uint32{21, 22} {
			ask(t, i, cid, 5005, "is its workload up?")
			require.Equal(t, "hi\n", v.must(t, fmt.Sprintf("echo hi | vsock dial %d 5005", cid)))
		}
		require.Contains(t, v.must(t, "timeout 5 vsock dial 0 10021 </dev/null; true"), "heartbeat answered by CID 3")
		listener := v.start(t, "vsock listen 7000 </dev/null")
		conn, err := dialParent(t, i, 7000)
		require.NoError(t, err)
		_, err = conn.Write([]byte("to the parent\n"))
		require.NoError(t, err)
		require.NoError(t, conn.Close())
		_, text := listener.wait()
		require.Equal(t, "to the parent\n", text)
	})
	t.Run("one enclave ends, the other goes on", func(t *testing.T) {
		ask(t, i, 21, 5006, "panic")
		two.says("hang-up 21")
		require.Equal(t, "hi\n", v.must(t, "echo hi | vsock dial 22 5005"))
	})
	t.Run("the device is reset while an enclave runs", func(t *testing.T) {
		v.must(t, "echo 1 >$(echo /sys/bus/pci/drivers/nitro_enclaves/0000:*)/reset")
		requireGone(t, i, 22)
		// The driver does not know. It is refused when it stops the enclave, and keeps that one's memory and CPUs for ever.
		v.must(t, "killall runner")
		two.wait()
		v.must(t, "rmmod nitro_enclaves && for c in 2 3 4 5; do echo 1 >/sys/devices/system/cpu/cpu$c/online; done")
		v.must(t, "insmod /.nesim/modules/nitro_enclaves.ko ne_cpus=2-5")
	})
	v.start(t, "/root/guest run /root/hello.eif 23").says("heartbeat 23")
	t.Run("the primary VM is killed", func(t *testing.T) {
		v.kill()
		<-v.done
		require.ErrorIs(t, v.err, context.Canceled)
		requireGone(t, i, 23)
	})
}

// requireGone waits for the end of an enclave.
func requireGone(t *testing.T, i *instance.Instance, cid uint32) {
	t.Helper()
	require.True(t, eventually(func() bool {
		_, err := i.DialVsock(t.Context(), cid, 5005)
		return errors.Is(err, unix.EHOSTUNREACH)
	}, limit), "enclave %d runs on", cid)
}

// dialParent connects to a port of the primary VM, once something listens there.
func dialParent(t *testing.T, i *instance.Instance, port uint32) (vsock.Conn, error) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	return i.AwaitVsock(ctx, vsock.CIDParent, port)
}
