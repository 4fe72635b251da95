package nedriver

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/pcidev"
	"github.com/nesim/nesim/pcidev/vfiouser"
)

// childEnv tells the test program, run again as the other process of a benchmark, what to be. Its socket is
// descriptor 3.
const childEnv = "NESIM_NEDRIVER_TEST_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(childEnv) {
	case "pong":
		pong(3)
	case "device":
		serveDevice(3)
	default:
		os.Exit(m.Run())
	}
}

func pong(fd int) {
	var b [1]byte
	for {
		if n, err := unix.Read(fd, b[:]); n != 1 || err != nil {
			return
		}
		if _, err := unix.Write(fd, b[:]); err != nil {
			return
		}
	}
}

func serveDevice(fd int) {
	conn, err := unixConn(fd)
	if err == nil {
		err = pcidev.ServeConn(context.Background(), conn, newFakeHypervisor())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func unixConn(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

// child runs this program as another process at the other end of the socket that
// it returns.
func child(tb testing.TB, role string) int {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(tb, err)
	theirs := os.NewFile(uintptr(fds[1]), "socket")
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"="+role)
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = os.Stderr
	require.NoError(tb, cmd.Start())
	theirs.Close()
	tb.Cleanup(func() { require.NoError(tb, cmd.Wait()) })
	return fds[0]
}

// BenchmarkCommand measures a device command from the driver in one process to the
// device in another (write, interrupt, read of the reply) and, in turn with it, one
// byte sent to and fro over a UNIX socketpair between two processes.
func BenchmarkCommand(b *testing.B) {
	pingpong := child(b, "pong")
	defer unix.Close(pingpong)
	conn, err := unixConn(child(b, "device"))
	require.NoError(b, err)
	client, err := vfiouser.NewClient(context.Background(), conn)
	require.NoError(b, err)
	dev, err := openPCI(vfioBus{client})
	require.NoError(b, err)
	defer dev.close()
	slot, err := dev.do(pcidev.SlotAllocReq{})
	require.NoError(b, err)

	const batch = 20 // in turn, so that both meet the same weather
	var octet [1]byte
	var bare, command []time.Duration // of a batch
	b.ReportAllocs()
	for b.Loop() {
		start := time.Now()
		for range batch {
			if _, err := unix.Write(pingpong, octet[:]); err != nil {
				b.Fatal(err)
			}
			if _, err := unix.Read(pingpong, octet[:]); err != nil {
				b.Fatal(err)
			}
		}
		mid := time.Now()
		for range batch {
			if _, err := dev.do(pcidev.SlotInfoReq{SlotUID: slot.SlotUID}); err != nil {
				b.Fatal(err)
			}
		}
		bare = append(bare, mid.Sub(start))
		command = append(command, time.Since(mid))
	}
	median := func(d []time.Duration) float64 {
		slices.Sort(d)
		return float64(d[len(d)/2].Nanoseconds()) / batch
	}
	b.ReportMetric(median(bare), "ns/ping-pong")
	b.ReportMetric(median(command), "ns/command")
	b.ReportMetric(median(command)/median(bare), "ratio")
	b.ReportMetric(0, "ns/op") // of a batch of both: says nothing
}
