package pcidev

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/pcidev/vfiouser"
)

// start serves hv on a socket until the test ends, which must leave no descriptor.
func start(t *testing.T, hv Hypervisor) (path string, stop func()) {
	before := openFDs(t)
	path = filepath.Join(t.TempDir(), "pci.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, hv); close(done) }()
	stop = func() { cancel(); require.NoError(t, <-done) }
	t.Cleanup(func() {
		stop()
		require.Equal(t, before, openFDs(t))
	})
	return path, stop
}

// openFDs names the open descriptors, but for the Go poller's.
func openFDs(t testing.TB) (open []string) {
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && !strings.Contains(target, "eventpoll") && !strings.HasPrefix(target, "/proc/") {
			open = append(open, e.Name()+" "+target)
		}
	}
	return open
}

func connect(t *testing.T, path string) *driver {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	require.NoError(t, err)
	d := newDriver(t, conn)
	t.Cleanup(d.close)
	return d
}

// session waits for the n-th session.
func (h *fakeHypervisor) session(t *testing.T, n int) (s *fakeSession) {
	until(t, func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		if len(h.sessions) > n {
			s = h.sessions[n]
		}
		return s != nil
	})
	return s
}

func TestDriverOverASocket(t *testing.T) {
	hv := &fakeHypervisor{}
	path, _ := start(t, hv)
	d := connect(t, path)
	s := hv.session(t, 0)

	re, err := d.do(SlotAllocReq{})
	require.NoError(t, err)
	require.Equal(t, Reply{SlotUID: 7, MemRegions: MaxMemRegions}, re)

	_, err = d.do(SlotAddMemReq{7, 0x100000, 0x400000})
	require.Equal(t, unix.EFAULT, err, "not mapped")
	fd, err := unix.MemfdCreate("parent", unix.MFD_CLOEXEC)
	require.NoError(t, err)
	defer unix.Close(fd)
	require.NoError(t, unix.Ftruncate(fd, 0x400000))
	require.NoError(t, d.DMAMap(0x100000, 0x200000, fd, 0x200000, vfiouser.DMARead|vfiouser.DMAWrite))
	require.NoError(t, d.DMAMap(0x300000, 0x200000, fd, 0, vfiouser.DMARead|vfiouser.DMAWrite))
	_, err = d.do(SlotAddMemReq{7, 0x100000, 0x400000})
	require.NoError(t, err)
	require.NoError(t, s.mem.WriteAt([]byte("across"), 0x300000-3))
	got := make([]byte, 6)
	_, err = unix.Pread(fd, got[:3], 0x400000-3)
	require.NoError(t, err)
	_, err = unix.Pread(fd, got[3:], 0)
	require.NoError(t, err)
	require.Equal(t, "across", string(got))

	re, err = d.do(EnclaveStartReq{SlotUID: 7})
	require.NoError(t, err)
	require.EqualValues(t, 16, re.EnclaveCID)
	for range 100 {
		s.notify()
		require.NoError(t, d.event.Wait(context.Background()))
	}
	var count [4]byte
	require.NoError(t, d.RegionRead(BAR, NEEvtCnt, count[:]))
	require.Equal(t, []byte{4, 0, 100, 0}, count[:])

	d.close()
	<-s.closed
	require.Equal(t, "Close", s.taken()[4])
}

func TestDriversDoNotDisturbEachOther(t *testing.T) {
	hv := &fakeHypervisor{}
	path, _ := start(t, hv)
	a := connect(t, path)
	sa := hv.session(t, 0)
	b := connect(t, path)
	release := make(chan struct{})
	sa.set(nil, release)
	command := le.AppendUint32(nil, uint32(CmdEnclaveStart))
	require.NoError(t, a.Post(BAR, vfiouser.Write{Offset: NECommand, Data: command}))
	until(t, func() bool { return len(sa.taken()) == 1 })

	_, err := b.do(SlotCountReq{})
	require.NoError(t, err)
	a.close() // dies in the middle
	_, err = b.do(SlotCountReq{})
	require.NoError(t, err)
	close(release)
	<-sa.closed
	_, err = b.do(SlotCountReq{})
	require.NoError(t, err)
}

func TestServeEnds(t *testing.T) {
	hv := &fakeHypervisor{}
	path, stop := start(t, hv)
	d := connect(t, path)
	stop()
	<-hv.session(t, 0).closed
	_, err := d.do(SlotCountReq{})
	require.ErrorIs(t, err, vfiouser.ErrClosed)
	_, err = vfiouser.Dial(context.Background(), path)
	require.Error(t, err)
}

func TestServeRefusesDrivers(t *testing.T) {
	hv := &fakeHypervisor{refuse: errors.New("no more")}
	path, _ := start(t, hv)
	_, err := vfiouser.Dial(context.Background(), path)
	require.ErrorIs(t, err, vfiouser.ErrClosed)

	hv.mu.Lock()
	hv.refuse = nil
	hv.mu.Unlock()
	var drivers []*vfiouser.Client
	for range maxConnections {
		c, err := vfiouser.Dial(context.Background(), path)
		require.NoError(t, err)
		drivers = append(drivers, c)
	}
	_, err = vfiouser.Dial(context.Background(), path)
	require.ErrorIs(t, err, vfiouser.ErrClosed)
	for _, c := range drivers {
		c.Close()
	}
}
