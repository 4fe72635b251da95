package stage

import (
	"context"
	"errors"
	"net"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/pcidev"
	"github.com/nesim/nesim/pcidev/vfiouser"
	"github.com/nesim/nesim/sim/nedriver"
)

// bus is a driver's bus that can be taken from it: as when the daemon that serves the device ends.
type bus interface {
	nedriver.Bus
	cut()
}

// localBus has a device in this process: nothing on it blocks in the kernel, so that time can be virtual.
type localBus struct {
	vfiouser.Device // the device, with its faults
	device          *pcidev.Device
	dma             *vfiouser.DMA
	vectors         *vectors
	close           sync.Once
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

func (b *localBus) Close() (err error) {
	b.close.Do(func() {
		close(b.vectors.gone)
		err = b.device.Close()
		b.dma.UnmapAll()
	})
	return err
}

func (b *localBus) cut() { _ = b.Close() }

// there reports whether the device is, as an error.
func (b *localBus) there() error {
	select {
	case <-b.vectors.gone:
		return vfiouser.ErrClosed
	default:
		return nil
	}
}

func (b *localBus) RegionRead(region uint32, off uint64, p []byte) error {
	if err := b.there(); err != nil {
		return err
	}
	return b.Device.RegionRead(region, off, p)
}

func (b *localBus) RegionWrite(region uint32, off uint64, p []byte) error {
	if err := b.there(); err != nil {
		return err
	}
	return b.Device.RegionWrite(region, off, p)
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
		interrupts = append(interrupts, &vector{b.vectors.raised[i], b.vectors.gone})
	}
	return interrupts, nil
}

func (b *localBus) DMAMap(addr, size uint64, fd int, off uint64, flags uint32) error {
	if err := b.there(); err != nil {
		return err
	}
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return b.dma.Map(addr, size, off, flags, own)
}

func (b *localBus) DMAUnmap(addr, size uint64) error {
	if err := b.there(); err != nil {
		return err
	}
	return b.dma.Unmap(addr, size)
}

// vectors are MSI-X vectors that are channels. As an eventfd they count no more than that there was something.
type vectors struct {
	raised [pcidev.NumVectors]chan struct{}
	gone   chan struct{} // closed when the device is
}

func newVectors() *vectors {
	v := &vectors{gone: make(chan struct{})}
	for i := range v.raised {
		v.raised[i] = make(chan struct{}, 1)
	}
	return v
}

func (v *vectors) Trigger(n int) {
	select {
	case v.raised[n] <- struct{}{}:
	default:
	}
}

func (v *vectors) Pending(n int) bool { return false } // never masked
func (v *vectors) ClearPending()      {}

// vector is one of them, as its driver sees it.
type vector struct{ raised, gone <-chan struct{} }

func (v *vector) Wait(ctx context.Context) error {
	select {
	case <-v.raised: // first, though the others may be too
		return nil
	default:
	}
	select {
	case <-v.raised:
		return nil
	case <-v.gone:
		return vfiouser.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (v *vector) Close() error { return nil }

// socketBus has a device behind a real vfio-user connection, as every driver outside has it.
type socketBus struct {
	nedriver.Bus
	served chan error
	stop   context.CancelFunc // ends the device's side
}

func newSocketBus(ctx context.Context, f *faultyDevice, hv pcidev.Hypervisor) (*socketBus, error) {
	near, far, err := socketpair()
	if err != nil {
		return nil, err
	}
	b := &socketBus{served: make(chan error, 1)}
	serving, stop := context.WithCancel(context.Background())
	b.stop = stop
	go func() { b.served <- serve(serving, far, f, hv) }()
	client, err := vfiouser.NewClient(ctx, near)
	if err != nil {
		stop()
		return nil, errors.Join(err, <-b.served)
	}
	b.Bus = nedriver.VFIOBus(client)
	return b, nil
}

func (b *socketBus) Close() error {
	defer b.stop()
	return errors.Join(b.Bus.Close(), <-b.served)
}

func (b *socketBus) cut() {
	b.stop()
	err := <-b.served
	b.served <- err // for Close
}

// serve serves one device until its client has gone, or ctx is done.
func serve(ctx context.Context, conn *net.UnixConn, f *faultyDevice, hv pcidev.Hypervisor) error {
	dma, irqs := new(vfiouser.DMA), vfiouser.NewIRQs(pcidev.NumVectors)
	defer dma.UnmapAll()
	device, err := pcidev.NewDevice(f.hypervisor(hv), dma, f.interrupts(irqs))
	if err != nil {
		conn.Close()
		return err
	}
	server := vfiouser.Server{Device: f.device(device), DMA: dma, IRQs: irqs}
	return errors.Join(server.Serve(ctx, conn), device.Close())
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
