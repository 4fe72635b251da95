package nedriver

import (
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/pcidev"
)

// fakeHypervisor has one session: it reads what starts out of the donated memory.
type fakeHypervisor struct {
	mu     sync.Mutex
	mem    pcidev.Memory
	notify func()
	next   uint64
	slots  map[uint64]*fakeSlot
	stalls map[pcidev.Command]chan struct{} // a command waits for its own, when set
	resets int
	closed chan struct{}
}

type fakeSlot struct {
	regions []physRegion
	vcpus   []uint32
	image   string // the first bytes at EIFLoadOffset at the start
	cid     uint64
	state   uint16
}

func newFakeHypervisor() *fakeHypervisor {
	return &fakeHypervisor{slots: make(map[uint64]*fakeSlot), stalls: make(map[pcidev.Command]chan struct{}), closed: make(chan struct{})}
}

func (h *fakeHypervisor) Attach(mem pcidev.Memory, notify func()) (pcidev.Session, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mem, h.notify = mem, notify
	return h, nil
}

// stall lets commands of a kind wait until the returned function is called.
func (h *fakeHypervisor) stall(c pcidev.Command) (release func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stalls[c] = make(chan struct{})
	return sync.OnceFunc(func() { close(h.stalls[c]) })
}

func (h *fakeHypervisor) wait(c pcidev.Command) {
	h.mu.Lock()
	stall := h.stalls[c]
	h.mu.Unlock()
	if stall != nil {
		<-stall
	}
}

// reaches reports whether the device can reach physical memory.
func (h *fakeHypervisor) reaches(r physRegion) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mem.Mapped(r.start, r.size)
}

// on runs f on a slot, ENOENT when there is none.
func (h *fakeHypervisor) on(uid uint64, f func(*fakeSlot) error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	s, ok := h.slots[uid]
	if !ok {
		return fmt.Errorf("no slot %d: %w", uid, unix.ENOENT)
	}
	return f(s)
}

func (h *fakeHypervisor) SlotAlloc() (uint64, error) {
	h.wait(pcidev.CmdSlotAlloc)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.next++
	h.slots[h.next] = &fakeSlot{}
	return h.next, nil
}

func (h *fakeHypervisor) SlotFree(uid uint64) error {
	return h.on(uid, func(s *fakeSlot) error { delete(h.slots, uid); return nil })
}

func (h *fakeHypervisor) SlotAddMem(uid, paddr, size uint64) error {
	return h.on(uid, func(s *fakeSlot) error {
		if !h.mem.Mapped(paddr, size) {
			return unix.EFAULT
		}
		s.regions = append(s.regions, physRegion{paddr, size})
		return nil
	})
}

func (h *fakeHypervisor) SlotAddVCPU(uid uint64, vcpu uint32) error {
	return h.on(uid, func(s *fakeSlot) error { s.vcpus = append(s.vcpus, vcpu); return nil })
}

func (h *fakeHypervisor) EnclaveStart(uid, cid, flags uint64) (uint64, error) {
	h.wait(pcidev.CmdEnclaveStart)
	if cid == 0 {
		cid = 16 + uid
	}
	return cid, h.on(uid, func(s *fakeSlot) error {
		image := make([]byte, 9)
		s.cid, s.state = cid, pcidev.StateRunning
		err := h.mem.ReadAt(image, s.regions[0].start+EIFLoadOffset)
		s.image = string(image)
		return err
	})
}

func (h *fakeHypervisor) SlotInfo(uid uint64) (info pcidev.SlotInfo, err error) {
	err = h.on(uid, func(s *fakeSlot) error {
		info = pcidev.SlotInfo{SlotUID: uid, State: s.state}
		return nil
	})
	return info, err
}

func (h *fakeHypervisor) EnclaveStop(uid uint64) error {
	return h.on(uid, func(s *fakeSlot) error { s.state = pcidev.StateStopped; return nil })
}

func (h *fakeHypervisor) Reset() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.resets++
	clear(h.slots)
	return nil
}

func (h *fakeHypervisor) Close() error { close(h.closed); return nil }

func (h *fakeHypervisor) SlotAddBulkVCPUs(uint64, uint64) error { return unix.EOPNOTSUPP }
func (h *fakeHypervisor) SlotCount() (uint64, error)            { return 0, unix.EOPNOTSUPP }
func (h *fakeHypervisor) NextSlot(uint64) (info pcidev.SlotInfo, err error) {
	return info, unix.EOPNOTSUPP
}
func (h *fakeHypervisor) EnclaveGetSlot(uint64) (info pcidev.SlotInfo, err error) {
	return info, unix.EOPNOTSUPP
}

// crash ends an enclave without the driver's doing.
func (h *fakeHypervisor) crash(uid uint64) {
	h.on(uid, func(s *fakeSlot) error { s.state = pcidev.StateStopped; return nil })
	h.mu.Lock()
	notify := h.notify
	h.mu.Unlock()
	notify()
}

func (h *fakeHypervisor) slot(uid uint64) fakeSlot {
	var slot fakeSlot
	h.on(uid, func(s *fakeSlot) error { slot = *s; return nil })
	return slot
}

// socketWorld is a parent whose driver reaches its device over a socket.
type socketWorld struct {
	*testing.T
	hv      *fakeHypervisor
	host    *Host
	driver  *Driver
	process *Process
	file    *File
	kill    func() // ends the device's process, so to say
}

// serve offers the NE device of hv on a socket.
func serve(t testing.TB, hv pcidev.Hypervisor) (socket string, kill func()) {
	socket = filepath.Join(t.TempDir(), "pci")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var server sync.WaitGroup
	server.Go(func() { pcidev.Serve(ctx, l, hv) })
	kill = func() {
		cancel()
		server.Wait()
	}
	t.Cleanup(kill)
	return socket, kill
}

func newSocketWorld(t *testing.T) *socketWorld {
	noLeaks(t)
	w := &socketWorld{T: t, hv: newFakeHypervisor()}
	socket, kill := serve(t, w.hv)
	w.kill = kill
	var err error
	w.host, err = NewHost(HostConfig{Topology: Topology{CPUs: 8}})
	require.NoError(t, err)
	w.driver, err = Load(context.Background(), w.host, socket)
	require.NoError(t, err)
	t.Cleanup(func() { w.driver.Close() })
	require.NoError(t, w.driver.SetCPUs("2-7"))
	w.process = w.host.NewProcess()
	t.Cleanup(func() { w.process.Exit() })
	w.file = w.driver.Open(w.process)
	return w
}

func (w *socketWorld) ready(spec MapSpec) (*Enclave, *Mapping) {
	w.Helper()
	e, err := w.file.CreateVM()
	require.NoError(w, err)
	m, err := w.process.Mmap(spec)
	require.NoError(w, err)
	require.NoError(w, e.SetUserMemoryRegion(UserMemoryRegion{MemorySize: spec.Size, UserspaceAddr: m.Addr()}))
	for range 2 {
		_, err = e.AddVCPU(0)
		require.NoError(w, err)
	}
	return e, m
}

func (w *socketWorld) running() *Enclave {
	w.Helper()
	e, _ := w.ready(MapSpec{Size: 64 << 20})
	_, err := e.StartEnclave(StartInfo{})
	require.NoError(w, err)
	return e
}

func TestEnclaveOverASocket(t *testing.T) {
	w := newSocketWorld(t)
	e, m := w.ready(MapSpec{Size: 64 << 20, ContiguousPages: 8})
	_, err := io.WriteString(io.NewOffsetWriter(m, EIFLoadOffset), "the image")
	require.NoError(t, err)
	cid, err := e.StartEnclave(StartInfo{})
	require.NoError(t, err)
	require.Equal(t, 16+e.SlotUID(), cid)

	slot := w.hv.slot(e.SlotUID())
	require.Equal(t, "the image", slot.image)
	require.Equal(t, []uint32{2, 3}, slot.vcpus)
	require.Len(t, slot.regions, 4)

	w.hv.crash(e.SlotUID())
	waitDone(t, e)
	require.Equal(t, ErrHangUp, e.Err())
	require.NoError(t, e.Close())
	require.Empty(t, w.hv.slots)
	for _, region := range slot.regions {
		require.False(t, w.hv.reaches(region), "the device no longer reaches the memory")
	}
}

func TestRegionAcrossMappingsOverASocket(t *testing.T) {
	w := newSocketWorld(t)
	e, err := w.file.CreateVM()
	require.NoError(t, err)
	a, err := w.process.Mmap(MapSpec{Size: 2 << 20})
	require.NoError(t, err)
	_, err = w.process.Mmap(MapSpec{Size: 6 << 20})
	require.NoError(t, err)
	require.NoError(t, e.SetUserMemoryRegion(UserMemoryRegion{MemorySize: 8 << 20, UserspaceAddr: a.Addr()}))
	require.Equal(t, []physRegion{{physStart, 8 << 20}}, w.hv.slot(e.SlotUID()).regions)
}

func TestRefusalOfTheDeviceIsItsErrno(t *testing.T) {
	w := newSocketWorld(t)
	e, err := w.file.CreateVM()
	require.NoError(t, err)
	require.NoError(t, w.hv.SlotFree(e.SlotUID()))
	_, err = e.AddVCPU(0)
	requireErrno(t, unix.ENOENT, err)
	require.Contains(t, err.Error(), "refuses SLOT_ADD_VCPU")
	requireErrno(t, unix.ENOENT, e.Close())
}

func TestNoCrashOfManyIsLost(t *testing.T) {
	w := newSocketWorld(t)
	for range 40 {
		a, b, c := w.running(), w.running(), w.running()
		var crashes sync.WaitGroup
		for _, e := range []*Enclave{a, b, c} {
			crashes.Go(func() { w.hv.crash(e.SlotUID()) })
		}
		for _, e := range []*Enclave{a, b, c} {
			waitDone(t, e)
			require.Equal(t, ErrHangUp, e.Err())
			require.NoError(t, e.Close())
		}
		crashes.Wait()
		require.NoError(t, w.process.Exit())
		w.process = w.host.NewProcess()
		w.file = w.driver.Open(w.process)
	}
}

func TestDeviceThatDiesHangsUpOverASocket(t *testing.T) {
	w := newSocketWorld(t)
	a, b := w.running(), w.running()
	w.kill()
	for _, e := range []*Enclave{a, b} {
		waitDone(t, e)
		require.EqualValues(t, unix.POLLHUP, e.Poll())
		require.ErrorIs(t, e.Err(), ErrDeviceGone)
		requireErrno(t, ErrDeviceGone, e.Close())
	}
	_, err := w.file.CreateVM()
	requireErrno(t, ErrDeviceGone, err)
	require.NoError(t, w.driver.Close())
}

func TestDeviceThatDiesEndsTheCommandUnderWay(t *testing.T) {
	w := newSocketWorld(t)
	e, _ := w.ready(MapSpec{Size: 64 << 20})
	release := w.hv.stall(pcidev.CmdEnclaveStart)
	defer release()
	result := make(chan error)
	go func() {
		_, err := e.StartEnclave(StartInfo{})
		result <- err
	}()
	time.Sleep(20 * time.Millisecond) // likely under way; the result is the same if it is not
	killed := make(chan struct{})
	go func() { defer close(killed); w.kill() }()
	requireErrno(t, ErrDeviceGone, <-result)
	release()
	<-killed
}

func TestDriverThatGoesLeavesNothingWithTheDevice(t *testing.T) {
	w := newSocketWorld(t)
	e := w.running()
	require.NoError(t, w.driver.Close())
	<-w.hv.closed
	require.Empty(t, w.hv.slots)
	require.EqualValues(t, unix.POLLHUP, e.Poll())
	require.Equal(t, 1, w.hv.resets)
	require.Len(t, w.host.OnlineCPUs(), 8)
}

func TestLateReplyIsNotTakenForAnother(t *testing.T) {
	w := newSocketWorld(t)
	e, _ := w.ready(MapSpec{Size: 64 << 20})
	dev := w.driver.dev.(*pci)
	start := w.hv.stall(pcidev.CmdEnclaveStart)
	alloc := w.hv.stall(pcidev.CmdSlotAlloc)
	defer start()
	defer alloc()

	dev.mu.Lock()
	dev.timeout = 50 * time.Millisecond
	dev.mu.Unlock()
	_, err := e.StartEnclave(StartInfo{EnclaveCID: 77})
	requireErrno(t, unix.ETIMEDOUT, err)
	dev.mu.Lock()
	dev.timeout = replyTimeout
	dev.mu.Unlock()

	next := make(chan *Enclave)
	go func() {
		other, err := w.file.CreateVM()
		if err != nil {
			t.Error(err)
		}
		next <- other
	}()
	time.Sleep(20 * time.Millisecond) // the next command is sent, most likely
	start()
	time.Sleep(20 * time.Millisecond) // the late reply has come, most likely
	alloc()
	other := <-next
	require.NotNil(t, other)
	require.NotEqual(t, e.SlotUID(), other.SlotUID())
	require.NotZero(t, other.SlotUID(), "ENCLAVE_START's late reply has a slot uid too")
	require.NotZero(t, other.maxMemRegions)
}

func TestLoadSaysWhatIsMissing(t *testing.T) {
	noLeaks(t)
	host, err := NewHost(HostConfig{})
	require.NoError(t, err)
	socket := filepath.Join(t.TempDir(), "none")
	_, err = Load(context.Background(), host, socket)
	require.ErrorContains(t, err, socket)

	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	require.NoError(t, err)
	defer l.Close()
	go func() {
		if conn, err := l.Accept(); err == nil {
			conn.Close()
		}
	}()
	_, err = Load(context.Background(), host, socket)
	require.Error(t, err)
}
