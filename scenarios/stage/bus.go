package stage

import (
	"context"
	"errors"
	"net"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/pcidev"
	"github.com/nesim/nesim/pcidev/vfiouser"
	"github.com/nesim/nesim/sim/nedriver"
)

// localBus has a device in this process: nothing on it blocks in the kernel, so that time can be virtual.
type localBus struct {
	vfiouser.Device // the device, with its faults
	device          *pcidev.Device
	dma             *vfiouser.DMA
	vectors         *vectors
}

// newLocalBus attaches a device to the hypervisor.
func newLocalBus(f *faultyDevice, hv pcidev.Hypervisor) (*localBus, error) {
	b := &localBus{dma: new(vfiouser.DMA), vectors: newVectors()}
	var err error
	if b.device, err = pcidev.NewDevice(f.hypervisor(hv), b.dma, f.interrupts(b.vectors)); err != nil {
		return nil, err
	}
	b.Device = f.device(b.device)
	return b, nil
}

func (b *localBus) Close() error {
	err := b.device.Close()
	b.dma.UnmapAll()
	return err
}

func (b *localBus) RegionInfo(index uint32) (vfiouser.Region, error) { return b.Regions()[index], nil }

func (b *localBus) IRQInfo(uint32) (vfiouser.IRQInfo, error) {
	return vfiouser.IRQInfo{Flags: vfiouser.IRQFlagEventfd, Count: pcidev.NumVectors}, nil
}

func (b *localBus) Post(region uint32, writes ...vfiouser.Write) error {
	for _, w := range writes {
		if err := b.RegionWrite(region, w.Offset, w.Data); err != nil {
			return err
		}
	}
	return nil
}

func (b *localBus) Arm(n int) (interrupts []nedriver.Interrupt, err error) {
	for i := range n {
		interrupts = append(interrupts, b.vectors[i])
	}
	return interrupts, nil
}

func (b *localBus) DMAMap(addr, size uint64, fd int, off uint64, flags uint32) error {
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return b.dma.Map(addr, size, off, flags, own)
}

func (b *localBus) DMAUnmap(addr, size uint64) error { return b.dma.Unmap(addr, size) }

// vectors are MSI-X vectors that are channels. As an eventfd they count no more than that there was something.
type vectors [pcidev.NumVectors]vector

type vector chan struct{}

func newVectors() *vectors {
	v := new(vectors)
	for i := range v {
		v[i] = make(vector, 1)
	}
	return v
}

func (v *vectors) Trigger(n int) {
	select {
	case v[n] <- struct{}{}:
	default:
	}
}

func (v *vectors) Pending(n int) bool { return false } // never masked
func (v *vectors) ClearPending()      {}

func (v vector) Wait(ctx context.Context) error {
	select {
	case <-v:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (v vector) Close() error { return nil }

// socketBus has a device behind a real vfio-user connection, as every driver outside has it.
type socketBus struct {
	nedriver.Bus
	served chan error
}

func newSocketBus(ctx context.Context, f *faultyDevice, hv pcidev.Hypervisor) (*socketBus, error) {
	near, far, err := socketpair()
	if err != nil {
		return nil, err
	}
	b := &socketBus{served: make(chan error, 1)}
	go func() { b.served <- serve(far, f, hv) }()
	client, err := vfiouser.NewClient(ctx, near)
	if err != nil {
		return nil, errors.Join(err, <-b.served)
	}
	b.Bus = nedriver.VFIOBus(client)
	return b, nil
}

func (b *socketBus) Close() error { return errors.Join(b.Bus.Close(), <-b.served) }

// serve serves one device until its client has gone.
func serve(conn *net.UnixConn, f *faultyDevice, hv pcidev.Hypervisor) error {
	dma, irqs := new(vfiouser.DMA), vfiouser.NewIRQs(pcidev.NumVectors)
	defer dma.UnmapAll()
	device, err := pcidev.NewDevice(f.hypervisor(hv), dma, f.interrupts(irqs))
	if err != nil {
		conn.Close()
		return err
	}
	server := vfiouser.Server{Device: f.device(device), DMA: dma, IRQs: irqs}
	return errors.Join(server.Serve(context.Background(), conn), device.Close())
}

func socketpair() (near, far *net.UnixConn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	near, errNear := connOf(fds[0])
	far, errFar := connOf(fds[1])
	return near, far, errors.Join(errNear, errFar)
}
