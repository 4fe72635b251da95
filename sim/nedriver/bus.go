package nedriver

import (
	"context"

	"github.com/nesim/nesim/pcidev/vfiouser"
)

// Bus is what the driver needs of the PCI bus that the NE device is on: accesses to its regions, by their numbers in
// vfio-user, its MSI-X vectors, and DMA mappings. Where the device has refused something the error is a
// *vfiouser.Error; after any other the device is taken for gone.
type Bus interface {
	RegionInfo(index uint32) (vfiouser.Region, error)
	RegionRead(region uint32, off uint64, p []byte) error
	RegionWrite(region uint32, off uint64, p []byte) error
	// Post writes without waiting for the device.
	Post(region uint32, writes ...vfiouser.Write) error
	IRQInfo(index uint32) (vfiouser.IRQInfo, error)
	// Arm connects the first n MSI-X vectors.
	Arm(n int) ([]Interrupt, error)
	// DMAMap lets the device reach size bytes at off of a file as addr; the descriptor stays the caller's.
	DMAMap(addr, size uint64, fd int, off uint64, flags uint32) error
	DMAUnmap(addr, size uint64) error
	Close() error
}

// Interrupt is an MSI-X vector.
type Interrupt interface {
	// Wait waits until the vector has been raised since the last call.
	Wait(ctx context.Context) error
	Close() error
}

// vfioBus is the bus behind a vfio-user socket.
type vfioBus struct{ *vfiouser.Client }

func (b vfioBus) Arm(n int) (interrupts []Interrupt, err error) {
	var fds []int
	for range n {
		i, err := b.NewInterrupt()
		if err != nil {
			return interrupts, err
		}
		interrupts, fds = append(interrupts, i), append(fds, i.FD())
	}
	return interrupts, b.SetIRQs(vfiouser.IRQMSIX, 0, fds...)
}

// VFIOBus returns the bus of a connected vfio-user client.
func VFIOBus(client *vfiouser.Client) Bus { return vfioBus{client} }
