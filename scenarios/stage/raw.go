package stage

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/pcidev"
	"github.com/nesim/nesim/pcidev/vfiouser"
	"github.com/nesim/nesim/sim/nedriver"
)

// The memory of the raw device's parent: mapped for DMA, and zero but for what enclaves leave.
const (
	RawMemory     uint64 = 4 << 30   // its physical address
	RawMemorySize uint64 = 256 << 20 // in bytes
)

// rawDevice sends commands past the driver, on a device of its own.
type rawDevice struct {
	bus   nedriver.Bus
	reply nedriver.Interrupt

	mu sync.Mutex // one command at a time
}

func newRawDevice(bus nedriver.Bus) (*rawDevice, error) {
	vectors, err := bus.Arm(pcidev.NumVectors)
	if err != nil {
		return nil, err
	}
	d := &rawDevice{bus: bus, reply: vectors[pcidev.NEVecReply]}
	if err := d.share(); err != nil {
		return nil, err
	}
	if err := bus.RegionWrite(pcidev.BAR, pcidev.NEVersion, []byte{pcidev.NEVersionMax, 0}); err != nil {
		return nil, err
	}
	return d, bus.RegionWrite(pcidev.BAR, pcidev.NEEnable, []byte{pcidev.NEEnableOn})
}

func (d *rawDevice) share() error {
	fd, err := unix.MemfdCreate("raw", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, int64(RawMemorySize)); err != nil {
		return err
	}
	return d.bus.DMAMap(RawMemory, RawMemorySize, fd, 0, vfiouser.DMARead|vfiouser.DMAWrite)
}

func (d *rawDevice) do(ctx context.Context, req pcidev.Request) (reply pcidev.Reply, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	err = d.bus.Post(pcidev.BAR,
		vfiouser.Write{Offset: pcidev.NESendData, Data: req.Append(nil)},
		vfiouser.Write{Offset: pcidev.NECommand, Data: binary.LittleEndian.AppendUint32(nil, uint32(req.Command()))})
	if err != nil {
		return reply, err
	}
	if err := d.reply.Wait(ctx); err != nil {
		return reply, fmt.Errorf("%v: no reply: %w", req.Command(), err)
	}
	b := make([]byte, pcidev.ReplySize)
	if err := d.bus.RegionRead(pcidev.BAR, pcidev.NERecvData, b); err != nil {
		return reply, err
	}
	return reply, reply.Decode(b)
}

// Do sends a raw command to the device, past the driver, on a session of its own: its slots are not the driver's, and
// its memory is at RawMemory. The error is of the way to the device: a refusal is in the reply's RC.
func (s *Stage) Do(ctx context.Context, req pcidev.Request) (pcidev.Reply, error) {
	s.mu.Lock()
	d := s.raw
	s.mu.Unlock()
	if d == nil {
		bus, err := s.engine.bus(ctx, s.newDevice(), s.Hypervisor)
		if err != nil {
			return pcidev.Reply{}, err
		}
		if d, err = newRawDevice(bus); err != nil {
			bus.Close()
			return pcidev.Reply{}, err
		}
		s.mu.Lock()
		s.raw = d
		s.mu.Unlock()
	}
	return d.do(ctx, req)
}
