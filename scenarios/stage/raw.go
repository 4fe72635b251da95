package stage

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

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
	bus    nedriver.Bus
	reply  nedriver.Interrupt
	memory *os.File
	image  *io.SectionReader
	alone  chan struct{} // full during a command, and no mutex, so that who waits for it does not hold time

	images map[uint64]uint64 // by slot uid: where its first region is
}

func newRawDevice(bus nedriver.Bus, image *io.SectionReader) (*rawDevice, error) {
	vectors, err := bus.Arm(pcidev.NumVectors)
	if err != nil {
		return nil, err
	}
	d := &rawDevice{bus: bus, reply: vectors[pcidev.NEVecReply], image: image, alone: make(chan struct{}, 1), images: make(map[uint64]uint64)}
	fd, err := unix.MemfdCreate("nesim-raw", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	d.memory = os.NewFile(uintptr(fd), "nesim-raw")
	if err := d.memory.Truncate(int64(RawMemorySize)); err != nil {
		return nil, errors.Join(err, d.memory.Close())
	}
	if err := bus.DMAMap(RawMemory, RawMemorySize, int(d.memory.Fd()), 0, vfiouser.DMARead|vfiouser.DMAWrite); err != nil {
		return nil, errors.Join(err, d.memory.Close())
	}
	if err := bus.RegionWrite(pcidev.BAR, pcidev.NEVersion, []byte{pcidev.NEVersionMax, 0}); err != nil {
		return nil, err
	}
	return d, bus.RegionWrite(pcidev.BAR, pcidev.NEEnable, []byte{pcidev.NEEnableOn})
}

func (d *rawDevice) close() error { return errors.Join(d.bus.Close(), d.memory.Close()) }

// load puts the hello image where the hypervisor looks for it, as a parent does before it starts an enclave.
func (d *rawDevice) load(slotUID uint64) error {
	at, ok := d.images[slotUID]
	if !ok || at < RawMemory || at-RawMemory > RawMemorySize {
		return nil
	}
	off := int64(at - RawMemory + nedriver.EIFLoadOffset)
	if off+d.image.Size() > int64(RawMemorySize) {
		return nil
	}
	_, err := io.Copy(io.NewOffsetWriter(d.memory, off), io.NewSectionReader(d.image, 0, d.image.Size()))
	return err
}

func (d *rawDevice) do(ctx context.Context, req pcidev.Request) (reply pcidev.Reply, err error) {
	select {
	case d.alone <- struct{}{}:
		defer func() { <-d.alone }()
	case <-ctx.Done():
		return reply, ctx.Err()
	}
	switch r := req.(type) {
	case pcidev.SlotAddMemReq:
		if _, known := d.images[r.SlotUID]; !known {
			d.images[r.SlotUID] = r.PAddr
		}
	case pcidev.EnclaveStartReq:
		if err := d.load(r.SlotUID); err != nil {
			return reply, err
		}
	}
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
// its memory is at RawMemory. An enclave is started with the hello image, in its first region of that. The error is of the way to the device: a refusal is in the reply's RC.
func (s *Stage) Do(ctx context.Context, req pcidev.Request) (pcidev.Reply, error) {
	s.mu.Lock()
	d := s.raw
	s.mu.Unlock()
	if d == nil {
		bus, err := s.engine.bus(ctx, s.newDevice(), s.Hypervisor)
		if err != nil {
			return pcidev.Reply{}, err
		}
		image, size, err := s.Hello(ctx)
		if err == nil {
			d, err = newRawDevice(bus, io.NewSectionReader(image, 0, size))
		}
		if err != nil {
			return pcidev.Reply{}, errors.Join(err, bus.Close())
		}
		s.mu.Lock()
		s.raw = d
		s.mu.Unlock()
	}
	return d.do(ctx, req)
}
