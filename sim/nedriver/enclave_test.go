package nedriver

import (
	"os"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/pcidev"
)

func TestLifeOfAnEnclaveAsTheDeviceSeesIt(t *testing.T) {
	w := newWorld(t, HostConfig{}, "2-3")
	e, m := w.ready()
	offset, err := e.GetImageLoadInfo(NEEIFImage)
	require.NoError(t, err)
	require.EqualValues(t, 8<<20, offset)
	cid, err := e.StartEnclave(StartInfo{Flags: NEEnclaveDebugMode, EnclaveCID: 18})
	require.NoError(t, err)
	require.EqualValues(t, 18, cid)
	require.Zero(t, e.Poll())
	require.NoError(t, e.Err())
	require.NoError(t, e.Close())

	slot := e.SlotUID()
	require.Equal(t, []pcidev.Request{
		pcidev.SlotAllocReq{},
		pcidev.SlotAddMemReq{SlotUID: slot, PAddr: physStart, Size: m.Size()},
		pcidev.SlotAddVCPUReq{SlotUID: slot, VCPUID: 2},
		pcidev.SlotAddVCPUReq{SlotUID: slot, VCPUID: 3},
		pcidev.EnclaveStartReq{SlotUID: slot, EnclaveCID: 18, Flags: 1},
		pcidev.EnclaveStopReq{SlotUID: slot},
		pcidev.SlotFreeReq{SlotUID: slot},
	}, w.dev.asked())
	require.Zero(t, w.dev.mappings())
}

func TestEnclaveNeverStartedIsOnlyFreed(t *testing.T) {
	w := newWorld(t, HostConfig{}, "2-3")
	e := w.create()
	w.dev.asked()
	require.NoError(t, e.Close())
	require.Equal(t, []pcidev.Request{pcidev.SlotFreeReq{SlotUID: e.SlotUID()}}, w.dev.asked())
}

func TestCIDZeroIsChosenByTheDevice(t *testing.T) {
	w := newWorld(t, HostConfig{}, "2-3")
	e, _ := w.ready()
	cid, err := e.StartEnclave(StartInfo{})
	require.NoError(t, err)
	require.EqualValues(t, 16, cid)
}

func TestStartChecksComeInTheDriversOrder(t *testing.T) {
	w := newWorld(t, HostConfig{}, "2-3")
	e := w.create()
	start := func(flags, cid uint64) error {
		_, err := e.StartEnclave(StartInfo{Flags: flags, EnclaveCID: cid})
		return err
	}
	requireErrno(t, NEErrInvalidFlagValue, start(2, 3))
	for _, cid := range []uint64{1, 2, 3, 1<<32 - 1, 1 << 32, 1<<64 - 1} {
		requireErrno(t, NEErrInvalidEnclaveCID, start(0, cid))
	}
	for _, cid := range []uint64{0, 4, 1<<32 - 2} {
		requireErrno(t, NEErrNoMemRegionsAdded, start(1, cid))
	}
	w.donate(e, w.mmap(MapSpec{Size: 62 << 20}))
	requireErrno(t, NEErrEnclaveMemMinSize, start(0, 0))
	w.donate(e, w.mmap(MapSpec{Size: 2 << 20}))
	requireErrno(t, NEErrNoVCPUsAdded, start(0, 0))
	w.addVCPUs(e, 1)
	requireErrno(t, NEErrFullCoresNotUsed, start(0, 0))
	w.addVCPUs(e, 1)
	w.dev.set(func() { w.dev.refuse[pcidev.CmdEnclaveStart] = unix.EINVAL })
	requireErrno(t, unix.EINVAL, start(0, 0))
	w.dev.set(func() { clear(w.dev.refuse) })
	require.NoError(t, start(0, 0), "a refused start can be tried again")
	requireErrno(t, NEErrInvalidEnclaveCID, start(0, 3))
	requireErrno(t, NEErrNotInInitState, start(0, 4))
}

func TestNothingIsAddedToAStartedEnclave(t *testing.T) {
	w := newWorld(t, HostConfig{}, "2-3")
	e, m := w.running()
	_, err := e.AddVCPU(99)
	requireErrno(t, NEErrNotInInitState, err)
	_, err = e.GetImageLoadInfo(99)
	requireErrno(t, NEErrNotInInitState, err)
	region := UserMemoryRegion{MemorySize: m.Size(), UserspaceAddr: m.Addr()}
	requireErrno(t, NEErrNotInInitState, e.SetUserMemoryRegion(region))
	region.Flags = 1
	requireErrno(t, NEErrInvalidFlagValue, e.SetUserMemoryRegion(region))
}

func TestEnclaveThatEndsByItselfHangsUp(t *testing.T) {
	w := newWorld(t, HostConfig{Topology: Topology{CPUs: 8}}, "2-5")
	a, _ := w.running()
	b, _ := w.running()
	w.dev.asked()
	w.dev.crash(a.SlotUID())
	waitDone(t, a)
	require.EqualValues(t, unix.POLLHUP, a.Poll())
	require.Equal(t, ErrHangUp, a.Err())
	require.Zero(t, b.Poll(), "the other goes on")

	_, err := a.AddVCPU(0)
	requireErrno(t, NEErrNotInInitState, err)
	w.dev.asked()
	require.NoError(t, a.Close())
	require.Equal(t, []pcidev.Request{pcidev.SlotFreeReq{SlotUID: a.SlotUID()}}, w.dev.asked(), "it need not be stopped")
	require.EqualValues(t, unix.POLLNVAL, a.Poll())
}

func TestEventIsAskedAboutForRunningEnclavesOnly(t *testing.T) {
	w := newWorld(t, HostConfig{Topology: Topology{CPUs: 8}}, "2-7")
	idle := w.create()
	ended, _ := w.running()
	w.dev.crash(ended.SlotUID())
	waitDone(t, ended)
	running, _ := w.running()
	w.dev.asked()
	w.dev.crash(running.SlotUID())
	waitDone(t, running)
	require.Equal(t, []pcidev.Request{pcidev.SlotInfoReq{SlotUID: running.SlotUID()}}, w.dev.asked())
	require.Zero(t, idle.Poll())
}

func TestEnclaveThatTheDeviceWillNotTellOfHangsUpAndIsStopped(t *testing.T) {
	w := newWorld(t, HostConfig{}, "2-3")
	e, _ := w.running()
	w.dev.set(func() { w.dev.refuse[pcidev.CmdSlotInfo] = unix.EIO })
	w.dev.crash(e.SlotUID())
	waitDone(t, e)
	require.EqualValues(t, unix.POLLHUP, e.Poll())
	require.ErrorIs(t, e.Err(), unix.EIO)
	w.dev.asked()
	require.NoError(t, e.Close())
	require.Len(t, w.dev.asked(), 2, "ENCLAVE_STOP and SLOT_FREE")
}

func TestCloseWakesWaitersWithoutHangUp(t *testing.T) {
	w := newWorld(t, HostConfig{}, "2-3")
	e, _ := w.running()
	var woken sync.WaitGroup
	for range 8 {
		woken.Go(func() { waitDone(t, e) })
	}
	require.NoError(t, e.Close())
	woken.Wait()
	require.Equal(t, os.ErrClosed, e.Err())
	require.EqualValues(t, unix.POLLNVAL, e.Poll())
	require.Equal(t, os.ErrClosed, e.Close())
	_, err := e.AddVCPU(0)
	requireErrno(t, unix.EBADF, err)
	_, err = e.Dup(w.process)
	require.ErrorIs(t, err, os.ErrClosed)
}

func TestAnotherProcessMayStartButNotEquip(t *testing.T) {
	w := newWorld(t, HostConfig{}, "2-3")
	e, m := w.create(), w.mmap(MapSpec{Size: 64 << 20})
	child := w.host.NewProcess()
	inherited, err := e.Dup(child)
	require.NoError(t, err)

	_, err = inherited.AddVCPU(0)
	requireErrno(t, unix.EIO, err)
	requireErrno(t, unix.EIO, inherited.SetUserMemoryRegion(UserMemoryRegion{MemorySize: 1, UserspaceAddr: 1}))
	w.donate(e, m)
	w.addVCPUs(e, 2)
	_, err = inherited.StartEnclave(StartInfo{})
	require.NoError(t, err)

	require.NoError(t, w.process.Exit())
	require.Zero(t, inherited.Poll(), "the enclave lives while one has it open")
	w.dev.asked()
	require.NoError(t, child.Exit())
	require.Len(t, w.dev.asked(), 2, "ENCLAVE_STOP and SLOT_FREE")
	_, err = child.Mmap(MapSpec{Size: 1})
	require.ErrorIs(t, err, unix.ESRCH)
}

func TestProcessThatHasEndedGetsNoEnclave(t *testing.T) {
	w := newWorld(t, HostConfig{}, "2-3")
	e := w.create()
	require.NoError(t, w.process.Exit())
	_, err := w.file.CreateVM()
	requireErrno(t, unix.ESRCH, err)
	require.Empty(t, w.dev.states)
	other, err := w.driver.Open(w.host.NewProcess()).CreateVM()
	require.NoError(t, err)
	_, err = other.Dup(w.process)
	requireErrno(t, unix.ESRCH, err)
	require.NoError(t, other.Close())
	require.ErrorIs(t, e.Close(), os.ErrClosed)
}

func TestWhatTheDeviceWillNotFreeStaysWithTheEnclave(t *testing.T) {
	for _, command := range []pcidev.Command{pcidev.CmdEnclaveStop, pcidev.CmdSlotFree} {
		t.Run(command.String(), func(t *testing.T) {
			w := newWorld(t, HostConfig{HugePages: []HugePages{{0, PageSize2M, 32}}}, "2-3")
			e, _ := w.running()
			w.dev.set(func() { w.dev.refuse[command] = unix.EBUSY })
			requireErrno(t, unix.EBUSY, e.Close())
			_, err := w.file.CreateVM()
			requireErrno(t, NEErrNoCPUsAvailInPool, err)
			require.Equal(t, 1, w.dev.mappings())
			require.NoError(t, w.process.Exit())
			require.Zero(t, w.host.FreeHugePages(0, PageSize2M))

			require.Error(t, w.driver.Close())
			require.EqualValues(t, 32, w.host.FreeHugePages(0, PageSize2M), "the device is off: nobody uses the memory")
			require.Len(t, w.host.OnlineCPUs(), 8)
		})
	}
}

func TestSlotsRunOut(t *testing.T) {
	w := newWorld(t, HostConfig{}, "2-3")
	w.dev.set(func() { w.dev.refuse[pcidev.CmdSlotAlloc] = unix.ENOSPC })
	_, err := w.file.CreateVM()
	requireErrno(t, unix.ENOSPC, err)
	require.NoError(t, w.driver.SetCPUs("4-5"), "no enclave came of it")
}

func TestDeviceThatGoesHangsUpEveryEnclave(t *testing.T) {
	w := newWorld(t, HostConfig{HugePages: []HugePages{{0, PageSize2M, 64}}, Topology: Topology{CPUs: 8}}, "2-5")
	a, m := w.running()
	_, err := m.WriteAt([]byte("secret"), 0)
	require.NoError(t, err)
	b := w.create()
	close(w.dev.gone)
	for _, e := range []*Enclave{a, b} {
		waitDone(t, e)
		require.EqualValues(t, unix.POLLHUP, e.Poll())
		require.ErrorIs(t, e.Err(), ErrDeviceGone)
	}
	_, err = w.file.CreateVM()
	requireErrno(t, ErrDeviceGone, err)
	_, err = b.AddVCPU(0)
	requireErrno(t, unix.ENODEV, err)
	requireErrno(t, ErrDeviceGone, a.Close())
	got := make([]byte, 6)
	_, err = m.ReadAt(got, 0)
	require.NoError(t, err)
	require.Equal(t, make([]byte, 6), got)
	w.dev.set(func() { clear(w.dev.mapped) }) // its maps went with it
	require.ErrorIs(t, w.process.Exit(), ErrDeviceGone)
	require.EqualValues(t, 64, w.host.FreeHugePages(0, PageSize2M))
}

func TestUnloadedDriverEndsItsEnclaves(t *testing.T) {
	w := newWorld(t, HostConfig{}, "2-3")
	e, m := w.running()
	w.dev.asked()
	require.NoError(t, w.driver.Close())
	require.Len(t, w.dev.asked(), 2, "ENCLAVE_STOP and SLOT_FREE")
	require.EqualValues(t, unix.POLLHUP, e.Poll())
	require.ErrorIs(t, e.Err(), errUnloaded)
	_, err := e.AddVCPU(0)
	requireErrno(t, unix.ENODEV, err)
	_, err = w.file.CreateVM()
	requireErrno(t, unix.ENODEV, err)
	require.NoError(t, e.Close())
	require.NoError(t, m.Close())
	require.NoError(t, w.driver.Close(), "once more does nothing")
}

func TestManyProcessesAtOnce(t *testing.T) {
	w := newWorld(t, HostConfig{Topology: Topology{CPUs: 64}, HugePages: []HugePages{{0, PageSize2M, 32 * 16}}}, "2-63")
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			process := w.host.NewProcess()
			defer process.Exit()
			for range 5 {
				lifeOfOne(w, process)
			}
		})
	}
	all.Wait()
	require.EqualValues(t, 32*16, w.host.FreeHugePages(0, PageSize2M))
	require.NoError(t, w.driver.SetCPUs("2-63"))
}

// lifeOfOne runs one enclave that crashes.
func lifeOfOne(w *world, process *Process) {
	e, err := w.driver.Open(process).CreateVM()
	if err != nil {
		w.Error(err)
		return
	}
	defer e.Close()
	m, err := process.Mmap(MapSpec{Size: 64 << 20})
	if err != nil {
		w.Error(err)
		return
	}
	defer m.Close()
	err = e.SetUserMemoryRegion(UserMemoryRegion{MemorySize: m.Size(), UserspaceAddr: m.Addr()})
	for range 2 {
		_, vcpuErr := e.AddVCPU(0)
		err = join(err, vcpuErr)
	}
	_, startErr := e.StartEnclave(StartInfo{})
	if err = join(err, startErr); err != nil {
		w.Error(err)
		return
	}
	w.dev.crash(e.SlotUID())
	<-e.Done()
	if e.Poll() != unix.POLLHUP {
		w.Error("no hang-up")
	}
}
