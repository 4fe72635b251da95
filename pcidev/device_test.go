package pcidev

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/pcidev/vfiouser"
)

// fakeInterrupts counts triggers.
type fakeInterrupts struct {
	mu      sync.Mutex
	count   [NumVectors]int
	pending [NumVectors]bool
}

func (i *fakeInterrupts) Trigger(v int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.count[v]++
}

func (i *fakeInterrupts) Pending(v int) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.pending[v]
}

func (i *fakeInterrupts) ClearPending() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.pending = [NumVectors]bool{}
}

func (i *fakeInterrupts) raised(v int) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.count[v]
}

// noMemory is a parent that mapped nothing.
type noMemory struct{}

func (noMemory) Mapped(uint64, uint64) bool    { return false }
func (noMemory) ReadAt([]byte, uint64) error   { return unix.EFAULT }
func (noMemory) WriteAt([]byte, uint64) error  { return unix.EFAULT }
func (noMemory) Zero(paddr, size uint64) error { return unix.EFAULT }

// allMemory is one that mapped everything.
type allMemory struct{ noMemory }

func (allMemory) Mapped(uint64, uint64) bool { return true }

// bench is a device on the table.
type bench struct {
	testing.TB
	*Device
	irqs    *fakeInterrupts
	session *fakeSession
}

// newBench returns a device, enabled if on.
func newBench(t testing.TB, on bool) *bench {
	irqs, hv := &fakeInterrupts{}, &fakeHypervisor{}
	d, err := NewDevice(hv, allMemory{}, irqs)
	require.NoError(t, err)
	b := &bench{t, d, irqs, hv.sessions[0]}
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	if on {
		b.switchOn()
	}
	return b
}

func (b *bench) write(off uint64, p ...byte) { require.NoError(b, b.RegionWrite(BAR, off, p)) }

func (b *bench) read(off uint64, n int) []byte {
	p := make([]byte, n)
	require.NoError(b, b.RegionRead(BAR, off, p))
	return p
}

func (b *bench) switchOn() {
	b.write(NEVersion, 1, 0)
	b.write(NEEnable, NEEnableOn)
	require.True(b, b.enabled())
}

func (b *bench) enabled() bool { return b.read(NEEnable, 1)[0] == NEEnableOn }

func (b *bench) replies() int { return int(le.Uint16(b.read(NEEvtCnt, 2))) }

// submit writes a command, as the driver does.
func (b *bench) submit(c Command, payload ...byte) {
	if len(payload) > 0 {
		b.write(NESendData, payload...)
	}
	b.write(NECommand, le.AppendUint32(nil, uint32(c))...)
}

// request submits and waits for the reply.
func (b *bench) request(c Command, payload ...byte) Reply {
	n := b.replies()
	b.submit(c, payload...)
	until(b, func() bool { return b.replies() == n+1 })
	return b.reply()
}

func (b *bench) reply() (re Reply) {
	require.NoError(b, re.Decode(b.read(NERecvData, ReplySize)))
	return re
}

// until waits for a condition that is sure to come.
func until(t testing.TB, cond func() bool) {
	for deadline := time.Now().Add(time.Minute); !cond(); runtime.Gosched() {
		if time.Now().After(deadline) {
			require.Fail(t, "condition never met")
		}
	}
}

func u64s(vs ...uint64) []byte { return append64(nil, vs...) }

func TestEveryCommand(t *testing.T) {
	slot := Reply{SlotUID: 7, EnclaveCID: 16, MemRegions: 2, MemSize: 64 << 20, NrVCPUs: 2, Flags: 1, State: StateRunning}
	for _, tc := range []struct {
		req     Request
		payload []byte
		call    string
		reply   Reply
	}{
		{EnclaveStartReq{7, 16, 1}, u64s(7, 16, 1), "EnclaveStart 7 16 1", Reply{SlotUID: 7, EnclaveCID: 16}},
		{EnclaveGetSlotReq{16}, u64s(16), "EnclaveGetSlot 16", slot},
		{EnclaveStopReq{7}, u64s(7), "EnclaveStop 7", Reply{SlotUID: 7}},
		{SlotAllocReq{}, []byte{0}, "SlotAlloc", Reply{SlotUID: 7, MemRegions: MaxMemRegions}},
		{SlotFreeReq{7}, u64s(7), "SlotFree 7", Reply{SlotUID: 7}},
		{SlotAddMemReq{7, 0x40000000, 0x200000}, u64s(7, 0x40000000, 0x200000), "SlotAddMem 7 0x40000000 0x200000", Reply{SlotUID: 7}},
		{SlotAddVCPUReq{7, 3}, u64s(7, 3), "SlotAddVCPU 7 3", Reply{SlotUID: 7}},
		{SlotCountReq{}, []byte{0}, "SlotCount", Reply{SlotCount: 3}},
		{NextSlotReq{6}, u64s(6), "NextSlot 6", slot},
		{SlotInfoReq{7}, u64s(7), "SlotInfo 7", slot},
		{SlotAddBulkVCPUsReq{7, 2}, u64s(7, 2), "SlotAddBulkVCPUs 7 2", Reply{SlotUID: 7}},
	} {
		t.Run(tc.req.Command().String(), func(t *testing.T) {
			require.Equal(t, tc.payload, tc.req.Append(nil))
			req, err := DecodeRequest(tc.req.Command(), tc.payload)
			require.NoError(t, err)
			require.Equal(t, tc.req, req)
			_, err = DecodeRequest(tc.req.Command(), tc.payload[:len(tc.payload)-1])
			require.ErrorIs(t, err, unix.EINVAL)

			b := newBench(t, true)
			require.Equal(t, tc.reply, b.request(tc.req.Command(), tc.payload...))
			require.Equal(t, []string{tc.call}, b.session.taken())
			require.Equal(t, 1, b.irqs.raised(NEVecReply))
			require.Zero(t, b.irqs.raised(NEVecEvent))
			require.Equal(t, u64s(0), b.read(NERecvData+ReplySize, 8))

			b.session.set(fmt.Errorf("no: %w", unix.EBUSY), nil)
			require.Equal(t, Reply{RC: -int32(unix.EBUSY)}, b.request(tc.req.Command(), tc.payload...))
			b.session.set(errors.New("no"), nil)
			require.Equal(t, Reply{RC: -int32(unix.EIO)}, b.request(tc.req.Command(), tc.payload...))
			b.session.set(unix.Errno(0xfffffff0), nil)
			require.Equal(t, Reply{RC: -int32(unix.EIO)}, b.request(tc.req.Command(), tc.payload...))
		})
	}
}

func TestReplyLayout(t *testing.T) {
	re := Reply{-5, 1, 2, 3, 4, 5, 6, 7, 0xffff}
	b := re.Append(nil)
	require.Equal(t, join([]byte{0xfb, 0xff, 0xff, 0xff, 0, 0, 0, 0}, u64s(1, 2, 3, 4, 5, 6, 7), []byte{0xff, 0xff, 0, 0, 0, 0, 0, 0}), b)
	var got Reply
	require.NoError(t, got.Decode(b))
	require.Equal(t, re, got)
	require.ErrorIs(t, got.Decode(b[:ReplySize-1]), unix.EINVAL)
	require.Equal(t, unix.EIO, got.Err())
	require.NoError(t, (&Reply{}).Err())
}

func join(parts ...[]byte) (b []byte) {
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func TestUnknownCommandsAreInvalid(t *testing.T) {
	b := newBench(t, true)
	for _, c := range []Command{CmdInvalid, CmdMax, 0xffffffff} {
		require.Equal(t, Reply{RC: -int32(unix.EINVAL)}, b.request(c))
	}
	require.Empty(t, b.session.taken())
}

func TestDisabledDeviceDoesNothing(t *testing.T) {
	b := newBench(t, false)
	require.Equal(t, Reply{RC: -int32(unix.ENODEV)}, b.request(CmdSlotAlloc, 0))
	b.session.notify()
	require.Zero(t, b.irqs.raised(NEVecEvent))
	b.write(NEEnable, NEEnableOff)
	require.Empty(t, b.session.taken())
}

func TestVersionAndEnable(t *testing.T) {
	b := newBench(t, false)
	b.write(NEEnable, NEEnableOn)
	require.False(t, b.enabled(), "no version yet")
	b.write(NEVersion, 0x34, 0x12)
	require.Equal(t, []byte{1, 0}, b.read(NEVersion, 2), "the newest it knows")
	b.write(NEEnable, 2)
	require.False(t, b.enabled())
	b.write(NEEnable, NEEnableOn)
	require.True(t, b.enabled())
	b.write(NEVersion, 0, 0)
	require.Equal(t, []byte{1, 0}, b.read(NEVersion, 2), "fixed while enabled")
	require.Empty(t, b.session.taken())

	b.write(NEEnable, NEEnableOff)
	until(t, func() bool { return !b.enabled() })
	require.Equal(t, []string{"Reset"}, b.session.taken())
}

func TestRegistersTakeAnyAccess(t *testing.T) {
	b := newBench(t, true)
	data := make([]byte, NESendDataSize)
	for i := range data {
		data[i] = byte(i + 1)
	}
	b.write(NESendData, data...)
	require.Equal(t, data, b.read(NESendData, NESendDataSize))
	require.Equal(t, data[100:103], b.read(NESendData+100, 3))
	b.write(NESendData+NESendDataSize-1, 9, 9, 9)
	require.Equal(t, []byte{9, 0}, b.read(NESendData+NESendDataSize-1, 2)[:2], "reply data is read-only")
	b.write(NEEvtCnt, 1, 2, 3, 4)
	require.Zero(t, b.replies())
	b.write(NECommand, 4)
	b.write(NECommand+1, 0, 0, 0)
	b.write(NECommand, 4, 0, 0)
	b.write(NEVersion+1, 0)
	require.Zero(t, b.replies(), "half a command is none")
	require.Equal(t, u64s(0), b.read(BARSize-8, 8))

	all := b.read(0, BARSize)
	require.Equal(t, []byte{1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, all[:16])
	for off := range 0x210 {
		for n := range 20 {
			require.Equal(t, all[off:off+n], b.read(uint64(off), n), "%d bytes at %#x", n, off)
		}
	}

	// A wide write does what narrow ones in order do: the command comes before the
	// payload that follows it.
	wide := make([]byte, NESendData+24)
	wide[NEEnable], wide[NEVersion] = NEEnableOn, 1
	le.PutUint32(wide[NECommand:], uint32(CmdSlotInfo))
	copy(wide[NESendData:], u64s(77))
	b.write(NESendData, u64s(66)...)
	b.write(0, wide...)
	until(t, func() bool { return b.replies() == 1 })
	require.Equal(t, []string{"SlotInfo 66"}, b.session.taken())
	require.Equal(t, u64s(77), b.read(NESendData, 8))
}

func TestUnknownRegions(t *testing.T) {
	b := newBench(t, false)
	require.ErrorIs(t, b.RegionRead(1, 0, make([]byte, 1)), unix.EINVAL)
	require.ErrorIs(t, b.RegionWrite(vfiouser.RegionROM, 0, make([]byte, 1)), unix.EINVAL)
}

func TestCountersWrap(t *testing.T) {
	b := newBench(t, true)
	for range 1 << 16 {
		b.session.notify()
		b.submit(Command(99))
	}
	require.Equal(t, []byte{0, 0, 0, 0}, b.read(NEEvtCnt, 4))
	b.session.notify()
	b.session.notify()
	b.submit(Command(99))
	require.Equal(t, []byte{1, 0, 2, 0}, b.read(NEEvtCnt, 4))
	require.Equal(t, 1<<16+2, b.irqs.raised(NEVecEvent))
	require.Equal(t, 1<<16+1, b.irqs.raised(NEVecReply))
}

// While a command takes its time the registers answer and later commands wait.
func TestSlowCommandLeavesTheRegistersLive(t *testing.T) {
	b := newBench(t, true)
	release := make(chan struct{})
	b.session.set(nil, release)
	b.submit(CmdEnclaveStart, u64s(7, 16, 0)...)
	b.submit(CmdSlotInfo, u64s(7)...)
	b.submit(CmdSlotCount, 0)
	b.session.notify()
	require.Equal(t, 1, b.irqs.raised(NEVecEvent))
	require.Zero(t, b.replies())
	close(release)
	until(t, func() bool { return b.replies() == 3 })
	require.Equal(t, []string{"EnclaveStart 7 16 0", "SlotInfo 7", "SlotCount"}, b.session.taken())
}

func TestWaitingCommandsAreBounded(t *testing.T) {
	b := newBench(t, true)
	release := make(chan struct{})
	b.session.set(nil, release)
	b.submit(CmdEnclaveStart, u64s(7, 16, 0)...)
	until(t, func() bool { return len(b.session.taken()) == 1 })
	for range 10 * maxQueue {
		b.submit(CmdSlotCount, 0)
	}
	close(release)
	until(t, func() bool { return b.replies() == 1+maxQueue })
	require.Equal(t, Reply{SlotCount: 3}, b.request(CmdSlotCount, 0))
	require.Equal(t, 2+maxQueue, b.replies())
}

// Disabling drops what waits and the answer of what runs, and reads on until the
// session is reset.
func TestDisableDuringACommand(t *testing.T) {
	b := newBench(t, true)
	release := make(chan struct{})
	b.session.set(nil, release)
	b.submit(CmdEnclaveStart, u64s(7, 16, 0)...)
	until(t, func() bool { return len(b.session.taken()) == 1 })
	b.submit(CmdSlotCount, 0)
	b.write(NEEnable, NEEnableOff)
	require.True(t, b.enabled())
	require.Equal(t, Reply{RC: -int32(unix.ENODEV)}, b.request(CmdSlotAlloc, 0))
	b.session.notify()
	require.Zero(t, b.irqs.raised(NEVecEvent))

	b.write(NEEnable, NEEnableOn) // again, as soon as it is off
	b.submit(CmdSlotCount, 0)
	close(release)
	until(t, func() bool { return b.replies() == 2 })
	require.Equal(t, Reply{SlotCount: 3}, b.reply())
	require.Equal(t, []string{"Reset", "SlotCount"}, b.session.taken())
	require.True(t, b.enabled())
	require.Equal(t, 2, b.irqs.raised(NEVecReply))
}

func TestReset(t *testing.T) {
	b := newBench(t, true)
	fresh := newBench(t, false)
	b.session.set(unix.EIO, nil) // the session's trouble is not the driver's
	b.request(CmdSlotAlloc, 0)
	b.session.notify()
	b.write(NESendData, 1, 2, 3)
	require.NoError(t, b.RegionWrite(vfiouser.RegionConfig, pciCommand, []byte{0xff, 0xff}))
	require.NoError(t, b.RegionWrite(MSIXBAR, 0, make([]byte, 64)))
	require.NoError(t, b.Reset())
	require.NoError(t, b.Reset())
	until(t, func() bool { return !b.enabled() })
	require.Equal(t, []string{"SlotAlloc", "Reset"}, b.session.taken())
	for region, r := range b.Regions() {
		if r.Size == 0 {
			continue
		}
		got, want := make([]byte, r.Size), make([]byte, r.Size)
		require.NoError(t, b.RegionRead(uint32(region), 0, got))
		require.NoError(t, fresh.RegionRead(uint32(region), 0, want))
		require.Equal(t, want, got)
	}
	b.session.set(nil, nil)
	b.switchOn()
	require.Equal(t, Reply{SlotUID: 7, MemRegions: MaxMemRegions}, b.request(CmdSlotAlloc, 0))
}

func TestCloseWaitsForTheCommand(t *testing.T) {
	hv := &fakeHypervisor{}
	irqs := &fakeInterrupts{}
	d, err := NewDevice(hv, noMemory{}, irqs)
	require.NoError(t, err)
	b := &bench{t, d, irqs, hv.sessions[0]}
	b.switchOn()
	release := make(chan struct{})
	b.session.set(nil, release)
	b.submit(CmdEnclaveStart, u64s(7, 16, 0)...)
	b.submit(CmdSlotCount, 0)
	until(t, func() bool {
		b.session.mu.Lock()
		defer b.session.mu.Unlock()
		return len(b.session.calls) == 1
	})
	closed := make(chan error)
	go func() { closed <- d.Close() }()
	until(t, func() bool { return !b.enabled() })
	b.submit(CmdSlotCount, 0)
	b.write(NEEnable, NEEnableOn)
	close(release)
	require.NoError(t, <-closed)
	b.session.notify()
	require.Equal(t, []string{"EnclaveStart 7 16 0", "Close"}, b.session.taken())
	require.Zero(t, irqs.raised(NEVecReply)+irqs.raised(NEVecEvent))
}

func TestHypervisorRefusesTheDriver(t *testing.T) {
	_, err := NewDevice(&fakeHypervisor{refuse: io.ErrClosedPipe}, noMemory{}, &fakeInterrupts{})
	require.ErrorIs(t, err, io.ErrClosedPipe)
}

// observedSession is a Session with an Observer.
type observedSession struct {
	fakeSession
	seen chan string
}

func (s *observedSession) CommandDone(c Command, req Request, re Reply) {
	s.seen <- fmt.Sprint(c, req, re.RC)
}
func (s *observedSession) EventRaised(n uint16) { s.seen <- fmt.Sprint("event ", n) }

type observedHypervisor struct{ *observedSession }

func (h observedHypervisor) Attach(_ Memory, notify func()) (Session, error) {
	h.notify = notify
	return h.observedSession, nil
}

func TestObserverSeesCommandsAndEvents(t *testing.T) {
	s := &observedSession{fakeSession{closed: make(chan struct{})}, make(chan string, 8)}
	d, err := NewDevice(observedHypervisor{s}, noMemory{}, &fakeInterrupts{})
	require.NoError(t, err)
	b := &bench{TB: t, Device: d}
	b.switchOn()
	b.submit(CmdSlotFree, u64s(7)...)
	require.Equal(t, "SLOT_FREE {7} 0", <-s.seen)
	b.submit(50)
	require.Equal(t, "command 50 <nil> -22", <-s.seen)
	s.notify()
	require.Equal(t, "event 1", <-s.seen)
	require.NoError(t, d.Close())
}
