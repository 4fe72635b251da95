package nedriver

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/pcidev"
	"github.com/nesim/nesim/pcidev/vfiouser"
)

// replyTimeout is how long a command's reply may take, and how long the device may take to switch itself off.
// Source: NE_DEFAULT_TIMEOUT_MSECS, drivers/virt/nitro_enclaves/ne_pci_dev.c.
const replyTimeout = 120 * time.Second

// ErrDeviceGone is in every error that comes of a device whose other end has gone. It wraps ENODEV.
var ErrDeviceGone = fmt.Errorf("the Nitro Enclaves device is gone: %w", unix.ENODEV)

// pciDevice is what the upper part of the driver needs of the NE PCI device. After the device has gone every
// method fails with an error that wraps ErrDeviceGone.
type pciDevice interface {
	// do sends a command and waits for its reply. A refusal is an error that wraps the reply's errno; ETIMEDOUT
	// when there is no reply in time.
	do(req pcidev.Request) (pcidev.Reply, error)
	// dmaMap lets the device reach size bytes of file at off as physical memory at phys; dmaUnmap ends that.
	dmaMap(phys, size uint64, file *os.File, off uint64) error
	dmaUnmap(phys, size uint64) error
	// waitEvent waits until the device has raised its event vector since the last call, or for ctx's end.
	waitEvent(ctx context.Context) error
	// disable switches the device off, which frees all its slots.
	disable() error
	close()
}

// The parts of configuration space that the driver uses, and bits of the command register.
// Source: PCI_VENDOR_ID, PCI_COMMAND and its bits in include/uapi/linux/pci_regs.h.
const (
	pciIDs           = 0x00
	pciCommand       = 0x04
	pciCommandEnable = 0x0406 // memory space, bus master, no INTx
)

// replyWindow is what is read after a command: from the counters to the reply's end, in one read.
const replyWindow = pcidev.NERecvData + pcidev.ReplySize - pcidev.NEEvtCnt

// pci drives the device on a bus.
type pci struct {
	bus     Bus
	vectors []Interrupt
	timeout time.Duration

	mu     lock   // one command at a time
	sent   uint16 // what the reply counter is when the latest command has been answered
	window [replyWindow]byte
}

// openPCI takes the device on a bus, which it owns: it finds it to be an NE device, arms its vectors, and switches it
// off and on, so that it starts afresh.
func openPCI(bus Bus) (*pci, error) {
	p := &pci{bus: bus, timeout: replyTimeout, mu: newLock()}
	err := p.probe()
	if err == nil {
		err = p.arm()
	}
	if err == nil {
		err = p.disable()
	}
	if err == nil {
		err = p.enable()
	}
	if err != nil {
		p.close()
		return nil, fmt.Errorf("open the Nitro Enclaves device: %w", err)
	}
	return p, nil
}

func (p *pci) probe() error {
	ids := make([]byte, 4)
	if err := p.bus.RegionRead(vfiouser.RegionConfig, pciIDs, ids); err != nil {
		return deviceError(err)
	}
	if vendor, device := binary.LittleEndian.Uint16(ids), binary.LittleEndian.Uint16(ids[2:]); vendor != pcidev.VendorID || device != pcidev.DeviceID {
		return fmt.Errorf("the PCI device is %04x:%04x, not a Nitro Enclaves device (%04x:%04x): %w",
			vendor, device, pcidev.VendorID, pcidev.DeviceID, unix.ENODEV)
	}
	bar, err := p.bus.RegionInfo(pcidev.BAR)
	if err != nil {
		return deviceError(err)
	}
	if bar.Size < pcidev.NERecvData+pcidev.NERecvDataSize {
		return fmt.Errorf("BAR %d has only %d bytes: %w", pcidev.BAR, bar.Size, unix.ENOMEM)
	}
	return deviceError(p.bus.RegionWrite(vfiouser.RegionConfig, pciCommand,
		binary.LittleEndian.AppendUint16(nil, pciCommandEnable)))
}

func (p *pci) arm() error {
	info, err := p.bus.IRQInfo(vfiouser.IRQMSIX)
	if err != nil {
		return deviceError(err)
	}
	if info.Count < pcidev.NumVectors {
		return fmt.Errorf("%d MSI-X vectors where %d are needed: %w", info.Count, pcidev.NumVectors, unix.ENOSPC)
	}
	p.vectors, err = p.bus.Arm(pcidev.NumVectors)
	return deviceError(err)
}

// enable chooses the device's version and switches it on.
func (p *pci) enable() error {
	version := []byte{pcidev.NEVersionMax, 0}
	if err := p.set(pcidev.NEVersion, version); err != nil {
		return fmt.Errorf("version %d: %w", pcidev.NEVersionMax, err)
	}
	if err := p.set(pcidev.NEEnable, []byte{pcidev.NEEnableOn}); err != nil {
		return fmt.Errorf("switch on: %w", err)
	}
	counters := make([]byte, 4)
	if err := p.bus.RegionRead(pcidev.BAR, pcidev.NEEvtCnt, counters); err != nil {
		return deviceError(err)
	}
	p.sent = binary.LittleEndian.Uint16(counters)
	return nil
}

// set writes a register and expects to read the same; EIO otherwise.
func (p *pci) set(register uint64, value []byte) error {
	if err := p.bus.RegionWrite(pcidev.BAR, register, value); err != nil {
		return deviceError(err)
	}
	got := make([]byte, len(value))
	if err := p.bus.RegionRead(pcidev.BAR, register, got); err != nil {
		return deviceError(err)
	}
	if string(got) != string(value) {
		return fmt.Errorf("the device answers %x: %w", got, unix.EIO)
	}
	return nil
}

// disable switches the device off and waits until it is: its enclaves may have to be ended first.
func (p *pci) disable() error {
	off := []byte{pcidev.NEEnableOff}
	if err := p.bus.RegionWrite(pcidev.BAR, pcidev.NEEnable, off); err != nil {
		return deviceError(err)
	}
	for end := time.Now().Add(p.timeout); ; time.Sleep(2 * time.Millisecond) {
		state := make([]byte, 1)
		if err := p.bus.RegionRead(pcidev.BAR, pcidev.NEEnable, state); err != nil {
			return deviceError(err)
		}
		if state[0] == pcidev.NEEnableOff {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("the device does not switch off: %w", unix.ETIMEDOUT)
		}
	}
}

func (p *pci) do(req pcidev.Request) (reply pcidev.Reply, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent++
	err = p.bus.Post(pcidev.BAR,
		vfiouser.Write{Offset: pcidev.NESendData, Data: req.Append(nil)},
		vfiouser.Write{Offset: pcidev.NECommand, Data: binary.LittleEndian.AppendUint32(nil, uint32(req.Command()))})
	if err != nil {
		return reply, fmt.Errorf("%v: %w", req.Command(), deviceError(err))
	}
	if err := p.waitReply(); err != nil {
		return reply, fmt.Errorf("%v: %w", req.Command(), err)
	}
	if err := reply.Decode(p.window[pcidev.NERecvData-pcidev.NEEvtCnt:]); err != nil {
		return reply, err
	}
	if err := reply.Err(); err != nil {
		return reply, fmt.Errorf("the Nitro Enclaves device refuses %v: %w", req.Command(), err)
	}
	return reply, nil
}

// waitReply waits until the device has answered as many commands as were sent, and reads the reply. The counter
// tells a late reply to a command given up on from the one waited for, which the Linux driver cannot.
func (p *pci) waitReply() error {
	ctx, cancel := context.WithTimeout(context.Background(), p.timeout)
	defer cancel()
	for {
		err := p.vectors[pcidev.NEVecReply].Wait(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("the Nitro Enclaves device gave no reply in %v: %w", p.timeout, unix.ETIMEDOUT)
		}
		if err == nil {
			err = p.bus.RegionRead(pcidev.BAR, pcidev.NEEvtCnt, p.window[:])
		}
		if err != nil {
			return deviceError(err)
		}
		if binary.LittleEndian.Uint16(p.window[:]) == p.sent {
			return nil
		}
	}
}

func (p *pci) dmaMap(phys, size uint64, file *os.File, off uint64) error {
	conn, err := file.SyscallConn()
	if err != nil {
		return err
	}
	share := func(fd uintptr) {
		err = p.bus.DMAMap(phys, size, int(fd), off, vfiouser.DMARead|vfiouser.DMAWrite)
	}
	if ctlErr := conn.Control(share); ctlErr != nil {
		return ctlErr
	}
	return deviceError(err)
}

func (p *pci) dmaUnmap(phys, size uint64) error {
	return deviceError(p.bus.DMAUnmap(phys, size))
}

func (p *pci) waitEvent(ctx context.Context) error {
	err := p.vectors[pcidev.NEVecEvent].Wait(ctx)
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return deviceError(err)
}

func (p *pci) close() {
	for _, i := range p.vectors {
		i.Close()
	}
	p.bus.Close()
}

// deviceError tells a request that the device refused from a device that has gone.
func deviceError(err error) error {
	var refused *vfiouser.Error
	if err == nil || errors.As(err, &refused) {
		return err
	}
	return fmt.Errorf("%w (%w)", ErrDeviceGone, err)
}
