package stage

import (
	"encoding/binary"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/pcidev"
	"github.com/nesim/nesim/pcidev/vfiouser"
	"github.com/nesim/nesim/scenarios/fault"
	"github.com/nesim/nesim/scenarios/trace"
)

// faultyDevice puts faults between a device and its driver: at the registers, at the interrupts, and at the commands
// behind the device. What it holds is of the command under way: a driver sends one at a time.
type faultyDevice struct {
	stage *Stage

	mu      sync.Mutex
	step    int           // which has sent the command
	struck  []fault.Fault // for its reply
	garbage bool          // the reply that is read next is
	later   map[*time.Timer]struct{}
	closed  bool
}

// commandTime is how long a command takes on the scripted engine, at least. Were it nothing, two who send commands could
// do so at the same instant, in either order.
const commandTime = 20 * time.Microsecond

// hypervisor, device and interrupts wrap the three sides of one device.
func (f *faultyDevice) hypervisor(hv pcidev.Hypervisor) pcidev.Hypervisor {
	return &faultyHypervisor{hv, f}
}

func (f *faultyDevice) device(d vfiouser.Device) vfiouser.Device { return &faultyRegions{d, f} }

func (f *faultyDevice) interrupts(i pcidev.Interrupts) pcidev.Interrupts {
	return &faultyInterrupts{i, f}
}

// close lets nothing come later.
func (f *faultyDevice) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for t := range f.later {
		t.Stop()
	}
}

// after does something later.
func (f *faultyDevice) after(d time.Duration, do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	if f.later == nil {
		f.later = make(map[*time.Timer]struct{})
	}
	var t *time.Timer
	t = time.AfterFunc(d, func() {
		do()
		f.mu.Lock()
		delete(f.later, t)
		f.mu.Unlock()
	})
	f.later[t] = struct{}{}
}

// reply takes what was decided for the reply to the command under way, and the step that has sent it.
func (f *faultyDevice) reply() ([]fault.Fault, int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.struck, f.step
}

// faultyRegions sees the commands come and their replies being read.
type faultyRegions struct {
	vfiouser.Device
	*faultyDevice
}

func (r *faultyRegions) RegionWrite(region uint32, off uint64, p []byte) error {
	if region == pcidev.BAR && off == pcidev.NECommand && len(p) == 4 {
		command := pcidev.Command(binary.LittleEndian.Uint32(p))
		step, struck := r.stage.underWay(), r.stage.strike(fault.Occasion{At: fault.Reply, Command: command})
		r.mu.Lock()
		r.step, r.struck, r.garbage = step, struck, false
		for _, f := range struck {
			r.garbage = r.garbage || f.Do == fault.Garbage
		}
		r.mu.Unlock()
	}
	return r.Device.RegionWrite(region, off, p)
}

func (r *faultyRegions) RegionRead(region uint32, off uint64, p []byte) error {
	err := r.Device.RegionRead(region, off, p)
	r.mu.Lock()
	garbage := r.garbage
	r.mu.Unlock()
	if begin := int(pcidev.NERecvData) - int(off); region == pcidev.BAR && garbage && begin < len(p) {
		r.stage.Faults.Bytes(p[max(begin, 0):])
	}
	return err
}

// faultyInterrupts delays, loses and doubles interrupts.
type faultyInterrupts struct {
	pcidev.Interrupts
	*faultyDevice
}

func (i *faultyInterrupts) Trigger(vector int) {
	struck, step := i.reply()
	name := "reply"
	if vector == pcidev.NEVecEvent {
		struck, step, name = i.stage.strike(fault.Occasion{At: fault.Event}), i.stage.underWay(), "event"
	}
	times, delay := 1, time.Duration(0)
	if vector == pcidev.NEVecReply && i.stage.cfg.Engine == Scripted {
		delay = commandTime
	}
	for _, f := range struck {
		switch f.Do {
		case fault.Lose:
			times = 0
		case fault.Delay:
			delay += f.For
		case fault.Double:
			times = 2
		case fault.Storm:
			times = f.Times
		}
	}
	for range times {
		i.raise(vector, name, step, delay)
		delay += i.gap()
	}
}

// raise raises an interrupt now or later.
func (i *faultyInterrupts) raise(vector int, name string, step int, delay time.Duration) {
	raise := func() {
		i.stage.cfg.Trace.Add("device", trace.Interrupt, step, name)
		i.Interrupts.Trigger(vector)
	}
	if delay > 0 {
		i.after(delay, raise)
		return
	}
	raise()
}

// gap is the time between interrupts that come several at once: on a virtual clock one that meets the driver's commands,
// of commandTime each, never at the same instant, so that which interrupt a command answers is not for Go's scheduler.
func (i *faultyInterrupts) gap() time.Duration {
	if i.stage.cfg.Engine == Scripted {
		return 1009 * time.Nanosecond
	}
	return 0
}

// faultyHypervisor wraps sessions.
type faultyHypervisor struct {
	pcidev.Hypervisor
	*faultyDevice
}

func (h *faultyHypervisor) Attach(mem pcidev.Memory, notify func()) (pcidev.Session, error) {
	session, err := h.Hypervisor.Attach(mem, notify)
	if err != nil {
		return nil, err
	}
	return &faultySession{Session: session, faultyDevice: h.faultyDevice, mem: mem, images: make(map[uint64]uint64)}, nil
}

// faultySession turns replies to errors and corrupts images. It is the device's observer for the trace.
type faultySession struct {
	pcidev.Session
	*faultyDevice
	mem    pcidev.Memory
	images map[uint64]uint64 // where each slot's first region is
}

// rc is what becomes of a command's result.
func (s *faultySession) rc(err error) error {
	struck, _ := s.reply()
	for _, f := range struck {
		if f.Do == fault.Errno {
			return unix.Errno(f.Errno)
		}
	}
	return err
}

func (s *faultySession) SlotAlloc() (uint64, error) {
	uid, err := s.Session.SlotAlloc()
	return uid, s.rc(err)
}

func (s *faultySession) SlotFree(uid uint64) error { return s.rc(s.Session.SlotFree(uid)) }

func (s *faultySession) SlotAddMem(uid, paddr, size uint64) error {
	if _, known := s.images[uid]; !known {
		s.images[uid] = paddr
	}
	return s.rc(s.Session.SlotAddMem(uid, paddr, size))
}

func (s *faultySession) SlotAddVCPU(uid uint64, vcpu uint32) error {
	return s.rc(s.Session.SlotAddVCPU(uid, vcpu))
}

func (s *faultySession) SlotAddBulkVCPUs(uid, n uint64) error {
	return s.rc(s.Session.SlotAddBulkVCPUs(uid, n))
}

func (s *faultySession) SlotCount() (uint64, error) {
	n, err := s.Session.SlotCount()
	return n, s.rc(err)
}

func (s *faultySession) NextSlot(uid uint64) (pcidev.SlotInfo, error) {
	info, err := s.Session.NextSlot(uid)
	return info, s.rc(err)
}

func (s *faultySession) SlotInfo(uid uint64) (pcidev.SlotInfo, error) {
	info, err := s.Session.SlotInfo(uid)
	return info, s.rc(err)
}

func (s *faultySession) EnclaveGetSlot(cid uint64) (pcidev.SlotInfo, error) {
	info, err := s.Session.EnclaveGetSlot(cid)
	return info, s.rc(err)
}

func (s *faultySession) EnclaveStop(uid uint64) error { return s.rc(s.Session.EnclaveStop(uid)) }

func (s *faultySession) EnclaveStart(uid, cid, flags uint64) (uint64, error) {
	for _, f := range s.stage.strike(fault.Occasion{At: fault.Image, Enclave: s.stage.nameOf(uid)}) {
		s.corrupt(s.images[uid]+nedriverOffset+uint64(f.Bytes), f)
	}
	cid, err := s.Session.EnclaveStart(uid, cid, flags)
	return cid, s.rc(err)
}

// corrupt changes a byte of donated memory.
func (s *faultySession) corrupt(paddr uint64, f fault.Fault) {
	var b [1]byte
	err := s.mem.ReadAt(b[:], paddr)
	if err == nil {
		b[0] ^= 0xff
		err = s.mem.WriteAt(b[:], paddr)
	}
	if err != nil {
		s.stage.note("device", trace.Fault, f.Name+": "+err.Error())
	}
}

// CommandDone implements pcidev.Observer.
func (s *faultySession) CommandDone(c pcidev.Command, req pcidev.Request, reply pcidev.Reply) {
	_, step := s.reply()
	s.stage.cfg.Trace.Add("device", trace.Command, step, describe(c, req, reply))
}

// EventRaised implements pcidev.Observer: the interrupts are told of instead.
func (s *faultySession) EventRaised(uint16) {}

func connOf(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "socketpair")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}
