package nedriver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/pcidev"
	"github.com/nesim/nesim/pcidev/vfiouser"
)

// Driver is the loaded NE driver, bound to one device.
type Driver struct {
	host *Host
	dev  pciDevice
	cpus *cpuPool
	dma  *dmaTable

	stop   context.CancelFunc // ends the event goroutine
	events sync.WaitGroup

	listMu   lock
	enclaves []*enclave // those with a slot
	gone     error      // why no enclave can be made any more: the device has gone, or the driver is closed
}

// Load binds a driver for host to the NE device at a vfio-user socket. The CPU pool is empty until SetCPUs.
func Load(ctx context.Context, host *Host, socket string) (*Driver, error) {
	client, err := vfiouser.Dial(ctx, socket)
	if err != nil {
		return nil, err
	}
	return Attach(host, vfioBus{client})
}

// Attach is Load for a device on another bus, which the driver owns from here on.
func Attach(host *Host, bus Bus) (*Driver, error) {
	dev, err := openPCI(bus)
	if err != nil {
		return nil, err
	}
	return newDriver(host, dev), nil
}

func newDriver(host *Host, dev pciDevice) *Driver {
	ctx, stop := context.WithCancel(context.Background())
	d := &Driver{host: host, dev: dev, cpus: newCPUPool(host), dma: newDMATable(dev), stop: stop, listMu: newLock()}
	d.events.Go(func() { d.handleEvents(ctx) })
	return d
}

// Close unloads the driver: every enclave is ended and its descriptor hung up, the device is switched off, and
// the pool's CPUs and the memory are the parent's again.
func (d *Driver) Close() error {
	d.listMu.Lock()
	if errors.Is(d.gone, errUnloaded) {
		d.listMu.Unlock()
		return nil
	}
	d.gone = errUnloaded
	var errs []error
	for _, e := range slices.Clone(d.enclaves) {
		e.end(errUnloaded, true)
		errs = append(errs, e.free())
	}
	if err := d.dev.disable(); !errors.Is(err, ErrDeviceGone) {
		errs = append(errs, err)
	}
	for _, e := range slices.Clone(d.enclaves) { // those that the device did not let go by themselves
		errs = append(errs, e.releaseResources())
	}
	d.listMu.Unlock()
	d.stop()
	d.events.Wait()
	d.dev.close()
	d.cpus.clear()
	return join(errs...)
}

var errUnloaded = fmt.Errorf("the Nitro Enclaves driver is unloaded: %w", unix.ENODEV)

// SetCPUs sets the CPU pool for enclaves from a CPU list such as "2-5,7", as a write to the module parameter
// ne_cpus does. A pool has full cores only, of one NUMA node, without CPU 0's core; its CPUs are taken from the
// parent. EPERM while there are enclaves; EINVAL, ERANGE, EOVERFLOW or ENOSPC, and an empty pool, for a list that
// makes none.
func (d *Driver) SetCPUs(list string) error {
	d.listMu.Lock()
	defer d.listMu.Unlock()
	if len(d.enclaves) > 0 {
		return fmt.Errorf("enclaves use the CPU pool; end them first: %w", unix.EPERM)
	}
	return d.cpus.set(list)
}

// CPUs returns the CPU pool: the list that it was set from, as the parameter ne_cpus has it, and its CPUs in order,
// whether free or not.
func (d *Driver) CPUs() (list string, cpus []int) { return d.cpus.current() }

// File is the opened device file /dev/nitro_enclaves of a process.
type File struct {
	driver  *Driver
	process *Process
}

// Open opens the device file. It holds nothing, so that there is no Close.
func (d *Driver) Open(p *Process) *File { return &File{driver: d, process: p} }

// CreateVM makes an enclave without resources (NE_CREATE_VM). NEErrNoCPUsAvailInPool when no core of the pool
// is free or there is no pool; otherwise the device's errors.
func (f *File) CreateVM() (*Enclave, error) {
	d := f.driver
	d.listMu.Lock()
	defer d.listMu.Unlock()
	e, err := d.createVM(f.process)
	if err != nil {
		return nil, fmt.Errorf("create an enclave: %w", err)
	}
	h := &Enclave{enclave: e, process: f.process}
	if err := h.open(); err != nil {
		return nil, join(fmt.Errorf("create an enclave: %w", err), e.free())
	}
	return h, nil
}

// createVM does CreateVM with listMu held.
func (d *Driver) createVM(p *Process) (*enclave, error) {
	if d.gone != nil {
		return nil, d.gone
	}
	cpus, err := d.cpus.newEnclaveCPUs()
	if err != nil {
		return nil, err
	}
	reply, err := d.dev.do(pcidev.SlotAllocReq{})
	if err != nil {
		return nil, err
	}
	e := &enclave{
		driver:        d,
		owner:         p,
		slotUID:       reply.SlotUID,
		maxMemRegions: reply.MemRegions,
		cpus:          cpus,
		state:         pcidev.StateInit,
		done:          make(chan struct{}),
		infoMu:        newLock(),
	}
	d.enclaves = append(d.enclaves, e)
	return e, nil
}

// forget takes e off the list. The caller holds listMu.
func (d *Driver) forget(e *enclave) {
	d.enclaves = slices.DeleteFunc(d.enclaves, func(other *enclave) bool { return other == e })
}

// handleEvents is the event goroutine: it tells enclaves what became of them, until the device has gone or ctx
// is done.
func (d *Driver) handleEvents(ctx context.Context) {
	for {
		err := d.dev.waitEvent(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			d.hangUpAll(err)
			return
		}
		d.handleEvent()
	}
}

// handleEvent asks for every running enclave whether its state has changed; the event does not say whose has.
func (d *Driver) handleEvent() {
	d.listMu.Lock()
	defer d.listMu.Unlock()
	for _, e := range d.enclaves {
		e.checkState()
	}
}

// hangUpAll hangs up every enclave and lets no new one be made.
func (d *Driver) hangUpAll(err error) {
	d.listMu.Lock()
	defer d.listMu.Unlock()
	if d.gone == nil {
		d.gone = err
	}
	for _, e := range d.enclaves {
		e.end(err, true)
	}
}
