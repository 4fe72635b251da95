package hypervisor

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nesim/nesim/eif"
	"github.com/nesim/nesim/pcidev"
	"golang.org/x/sys/unix"
)

// stopTime is how long a VM may take to end by itself when it is stopped; after that it is for the VMM to force it.
const stopTime = 10 * time.Second

// EnclaveStart takes the image out of the slot's memory, checks and measures it, and has the VMM run it with as much
// memory and as many vCPUs as the slot has. An image that cannot boot is no error: the enclave runs, and does nothing.
// If the start is refused, the image is back in the slot's memory; what else was there may be zeroed.
func (s *Session) EnclaveStart(uid, cid, flags uint64) (uint64, error) {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	var sl *slot
	err := s.do(uid, func(found *slot) error {
		if err := found.mayStart(flags); err != nil {
			return err
		}
		if err := s.h.reserveCID(found, cid); err != nil {
			return err
		}
		sl, found.busy, found.cancel, found.flags = found, true, cancel, flags
		return nil
	})
	if err != nil {
		return 0, err
	}
	vm, img, err := sl.start(ctx)
	if err != nil {
		sl.startRefused(err)
		return 0, err
	}
	return uint64(sl.run(vm, img)), nil
}

// mayStart reports whether the slot has what an enclave needs. h.mu is held.
func (sl *slot) mayStart(flags uint64) error {
	if err := sl.wantInit("start enclave"); err != nil {
		return err
	}
	switch {
	case flags&^pcidev.EnclaveDebugMode != 0:
		return refuse(unix.EINVAL, "start enclave: flags %#x: only debug mode (%#x) is known", flags, pcidev.EnclaveDebugMode)
	case sl.mem.size < minMemory:
		return refuse(unix.ENOMEM, "start enclave: slot %#x has %d MiB of memory, an enclave needs %d MiB",
			sl.uid, sl.mem.size>>20, minMemory>>20)
	case len(sl.vcpus) == 0:
		return refuse(unix.EINVAL, "start enclave: slot %#x has no vCPU", sl.uid)
	}
	return nil
}

// start does the work of EnclaveStart for a busy slot. On an error the image is back.
func (sl *slot) start(ctx context.Context) (VM, *loan, error) {
	for _, r := range sl.mem.regions {
		if !sl.mem.mem.Mapped(r.paddr, r.size) {
			return nil, nil, refuse(unix.EFAULT, "start enclave: region %#x of %d bytes is no longer mapped for the device's DMA", r.paddr, r.size)
		}
	}
	vm, l, err := sl.bootImage(ctx)
	if err != nil && ctx.Err() == nil && errors.Is(err, ErrUnbootable) {
		vm, err = sl.runInert(err)
	}
	return vm, l, interrupted(ctx, err)
}

// bootImage takes the image and has the VMM start it. On an error the image is back.
func (sl *slot) bootImage(ctx context.Context) (VM, *loan, error) {
	h := sl.session.h
	img, measured, err := takeImage(ctx, &sl.mem)
	if err != nil {
		return nil, nil, err
	}
	h.mu.Lock()
	sl.measurements = &measured
	h.mu.Unlock()
	h.observe(Event{Kind: EnclaveStarting, SlotUID: sl.uid, CID: sl.cid, Measurements: measured})

	l := &loan{img: img, loaded: make(chan struct{})}
	vm, err := sl.boot(ctx, l, measured)
	if err != nil {
		return nil, nil, img.refused(err, img.size)
	}
	return vm, l, nil
}

// boot has the VMM start the image, when the parent's memory is empty.
func (sl *slot) boot(ctx context.Context, l *loan, measured eif.Measurements) (VM, error) {
	cmdline, err := l.img.Cmdline()
	if err != nil {
		return nil, bad(err)
	}
	if err := sl.mem.clear(imageOffset, l.img.size); err != nil {
		return nil, &refusal{unix.EFAULT, "take the parent's memory", err}
	}
	vm, err := sl.session.h.cfg.VMM.Start(ctx, VMSpec{
		SlotUID:      sl.uid,
		CID:          sl.cid,
		CPUs:         len(sl.vcpus),
		MemoryBytes:  uint64(sl.mem.size),
		Debug:        sl.flags&pcidev.EnclaveDebugMode != 0,
		Measurements: measured,
		Kernel:       l.img.kernel,
		Initrd:       l.img.initrd,
		Cmdline:      cmdline,
		Loaded:       sync.OnceFunc(func() { close(l.loaded) }),
	})
	if err != nil {
		return nil, &refusal{unix.EIO, "start the enclave's VM", err}
	}
	return vm, nil
}

// interrupted makes an error of a start that was ended from outside say so.
func interrupted(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return &refusal{unix.ECANCELED, "start enclave: the device was reset or closed meanwhile", err}
	}
	return err
}

// loan is an image that a VM may still read. A VM without one has none.
type loan struct {
	img    *image
	loaded chan struct{} // closed when the VM needs it no more
}

func (sl *slot) startRefused(err error) {
	h := sl.session.h
	h.mu.Lock()
	sl.err, sl.flags = err, 0
	h.releaseCID(sl)
	sl.idle()
	h.mu.Unlock()
	h.observe(Event{Kind: CommandRefused, SlotUID: sl.uid, Err: err})
}

// idle ends a command that was at work on the slot. h.mu is held.
func (sl *slot) idle() {
	sl.busy, sl.cancel = false, nil
	sl.session.h.idle.Broadcast()
}

// run makes a busy slot a running one, with goroutines that watch its VM, and returns its CID.
func (sl *slot) run(vm VM, l *loan) uint32 {
	h := sl.session.h
	h.mu.Lock()
	cid := sl.cid
	sl.vm, sl.ended, sl.state = vm, make(chan struct{}), pcidev.StateRunning
	h.mu.Unlock()
	h.observe(Event{Kind: EnclaveRunning, SlotUID: sl.uid, CID: cid})
	h.wg.Go(func() { sl.watch(cid) })
	if l != nil {
		h.wg.Go(func() {
			select {
			case <-l.loaded:
			case <-sl.ended:
			}
			l.img.close()
		})
	}
	h.mu.Lock() // only now: whoever ends the slot waits until its goroutines are there
	sl.idle()
	h.mu.Unlock()
	return cid
}

// watch waits for the VM's end.
func (sl *slot) watch(cid uint32) {
	h := sl.session.h
	exit := sl.vm.Wait()
	h.mu.Lock()
	sl.state, sl.exit, sl.endedAt = pcidev.StateStopped, &exit, time.Now()
	asked := sl.asked
	h.mu.Unlock()
	h.observe(Event{Kind: EnclaveExited, SlotUID: sl.uid, CID: cid, Exit: exit})
	if !asked {
		sl.session.notify()
	}
	close(sl.ended)
}

// EnclaveStop ends the slot's enclave and returns when it has ended. One that has ended already is no error: the
// driver may not know yet.
func (s *Session) EnclaveStop(uid uint64) error {
	var sl *slot
	err := s.do(uid, func(found *slot) error {
		switch found.state {
		case pcidev.StateInit:
			return refuse(unix.EBUSY, "stop enclave: the one of slot %#x was never started", uid)
		case pcidev.StateRunning:
			sl, found.busy, found.asked = found, true, true
		}
		return nil
	})
	if err != nil || sl == nil {
		return err
	}
	sl.stop()
	s.h.mu.Lock()
	sl.idle()
	s.h.mu.Unlock()
	return nil
}

// stop ends the VM of a busy slot and waits for its end.
func (sl *slot) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	_ = sl.vm.Stop(ctx) // however that went: what counts is the end
	<-sl.ended
}
