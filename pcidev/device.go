package pcidev

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/pcidev/vfiouser"
)

// Device is one NE PCI device. It implements vfiouser.Device.
//
// NE_ENABLE switches on at once and off in steps: it reads on until the Session is
// reset, which the driver waits for. While off, commands are answered ENODEV.
type Device struct {
	irqs     Interrupts
	session  Session
	observer Observer // nil: none
	worker   sync.WaitGroup

	mu       sync.Mutex
	work     sync.Cond // on mu: the worker has something to do
	config   configSpace
	msix     msixTableBytes
	version  uint16
	power    power
	replies  uint16 // the lower half of NE_EVTCNT
	events   uint16 // the upper half
	sendData [NESendDataSize]byte
	recvData [NERecvDataSize]byte

	queue   []command // for the worker
	busy    bool      // the Session is in a call
	stale   bool      // the command in that call must not be answered: reset meanwhile
	closing bool
}

// power is the state behind NE_ENABLE.
type power int

const (
	powerOff      power = iota
	powerOn             // enabled
	powerOffSoon        // reset under way
	powerOffAndOn       // reset under way, to be enabled after it
)

// command is a command and the part of NE_SEND_DATA that it may use.
type command struct {
	cmd     Command
	payload [maxRequest]byte
}

// maxQueue bounds the commands that wait for the one under way. The driver sends
// one at a time; more come only from one that gave up waiting.
const maxQueue = 8

// NewDevice attaches a device to the hypervisor. Close ends it.
func NewDevice(hv Hypervisor, mem Memory, irqs Interrupts) (*Device, error) {
	d := &Device{irqs: irqs, config: newConfigSpace(), msix: newMSIXTable()}
	d.work.L = &d.mu
	session, err := hv.Attach(mem, d.notify)
	if err != nil {
		return nil, fmt.Errorf("attach the PCI device to the hypervisor: %w", err)
	}
	d.session = session
	d.observer, _ = session.(Observer)
	d.worker.Go(d.run)
	return d, nil
}

// Close waits for the command under way, then closes the Session.
func (d *Device) Close() error {
	d.mu.Lock()
	d.closing = true
	d.stale = true
	d.power = powerOff
	d.queue = nil
	d.work.Signal()
	d.mu.Unlock()
	d.worker.Wait()
	return d.session.Close()
}

// Regions implements vfiouser.Device.
func (d *Device) Regions() [vfiouser.NumRegions]vfiouser.Region {
	const rw = vfiouser.RegionFlagRead | vfiouser.RegionFlagWrite
	return [vfiouser.NumRegions]vfiouser.Region{
		MSIXBAR:               {Size: MSIXBARSize, Flags: rw},
		BAR:                   {Size: BARSize, Flags: rw},
		vfiouser.RegionConfig: {Size: ConfigSize, Flags: rw},
	}
}

// RegionRead fills p from a region, with zeros where nothing is.
func (d *Device) RegionRead(region uint32, off uint64, p []byte) error {
	clear(p)
	d.mu.Lock()
	defer d.mu.Unlock()
	switch region {
	case vfiouser.RegionConfig:
		d.config.read(off, p)
	case MSIXBAR:
		overlay(p, off, MSIXTable, d.msix[:])
		overlay(p, off, MSIXPBA, []byte{d.pendingBits()})
	case BAR:
		d.readBAR(off, p)
	default:
		return fmt.Errorf("the NE device has no region %d: %w", region, unix.EINVAL)
	}
	return nil
}

// RegionWrite writes p to a region; what cannot be written is ignored.
func (d *Device) RegionWrite(region uint32, off uint64, p []byte) error {
	switch region {
	case vfiouser.RegionConfig:
		d.mu.Lock()
		defer d.mu.Unlock()
		d.config.write(off, p)
	case MSIXBAR:
		d.mu.Lock()
		defer d.mu.Unlock()
		d.msix.write(off, p)
	case BAR:
		d.writeBAR(off, p)
	default:
		return fmt.Errorf("the NE device has no region %d: %w", region, unix.EINVAL)
	}
	return nil
}

// Reset implements vfiouser.Device: everything is as after NewDevice, except that
// NE_ENABLE may read on until the Session's slots are freed.
func (d *Device) Reset() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.disable()
	d.config, d.msix = newConfigSpace(), newMSIXTable()
	d.version, d.replies, d.events = 0, 0, 0
	clear(d.sendData[:])
	clear(d.recvData[:])
	d.irqs.ClearPending()
	return nil
}

func (d *Device) pendingBits() (bits byte) {
	for v := range NumVectors {
		if d.irqs.Pending(v) {
			bits |= 1 << v
		}
	}
	return bits
}

func (d *Device) readBAR(off uint64, p []byte) {
	var regs [NESendData]byte
	if d.power != powerOff {
		regs[NEEnable] = NEEnableOn
	}
	le.PutUint16(regs[NEVersion:], d.version)
	le.PutUint32(regs[NEEvtCnt:], uint32(d.events)<<16|uint32(d.replies))
	overlay(p, off, 0, regs[:])
	overlay(p, off, NESendData, d.sendData[:])
	overlay(p, off, NERecvData, d.recvData[:])
}

// writeBAR acts on the registers that the write covers whole, in order of their
// offsets, as narrower writes one after another would.
func (d *Device) writeBAR(off uint64, p []byte) {
	d.mu.Lock()
	if b := covered(off, p, NEEnable, 1); b != nil {
		d.enable(b[0])
	}
	if b := covered(off, p, NEVersion, 2); b != nil && d.power != powerOn {
		d.version = min(le.Uint16(b), NEVersionMax)
	}
	c, run := command{}, false
	if b := covered(off, p, NECommand, 4); b != nil {
		c.cmd = Command(le.Uint32(b))
		copy(c.payload[:], d.sendData[:])
		run = d.submit(c)
	}
	d.storeSendData(off, p)
	d.mu.Unlock()
	if run {
		d.perform(c)
	}
}

// covered returns the bytes of p, standing at off, for the register of n bytes at
// reg, or nil if p does not have them all.
func covered(off uint64, p []byte, reg, n uint64) []byte {
	if off > reg || uint64(len(p)) < reg-off+n {
		return nil
	}
	return p[reg-off:][:n]
}

func (d *Device) storeSendData(off uint64, p []byte) {
	switch {
	case off < NESendData && uint64(len(p)) > NESendData-off:
		copy(d.sendData[:], p[NESendData-off:])
	case off >= NESendData && off < NESendData+NESendDataSize:
		copy(d.sendData[off-NESendData:], p)
	}
}

// enable acts on a write of NE_ENABLE. The device needs a version to be enabled.
func (d *Device) enable(v byte) {
	switch {
	case v == NEEnableOff:
		d.disable()
	case v != NEEnableOn, d.version == 0, d.closing:
	case d.power == powerOff:
		d.power = powerOn
	case d.power == powerOffSoon:
		d.power = powerOffAndOn
	}
}

// disable starts the way to powerOff, unless the device is there.
func (d *Device) disable() {
	d.queue = nil
	d.irqs.ClearPending()
	if d.power == powerOff {
		return
	}
	d.power = powerOffSoon
	d.stale = d.busy
	d.work.Signal()
}

// notify raises the event vector. It is the Session's callback.
func (d *Device) notify() {
	d.mu.Lock()
	on := d.power == powerOn
	if on {
		d.events++
	}
	count, observer := d.events, d.observer
	d.mu.Unlock()
	if !on { // off: there are no slots
		return
	}
	if observer != nil {
		observer.EventRaised(count)
	}
	d.irqs.Trigger(NEVecEvent)
}
