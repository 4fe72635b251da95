package vfiouser

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// IRQs are the device's MSI-X vectors as the client armed them.
//
// Under vfio the client keeps the MSI-X table and the capability's enable bit
// (QEMU shows the guest its own copy of both), so a vector's eventfd and mask
// here are what decides. A vector triggered while masked or without an eventfd
// is remembered as pending, and signalled when it is unmasked or armed: clients
// take eventfds away for a moment whenever they re-arm a vector.
//
// Its methods may be called from several goroutines and never block.
type IRQs struct {
	mu      sync.Mutex
	vectors []vector
}

type vector struct {
	fd      int // eventfd, -1 for none
	masked  bool
	pending bool
}

// NewIRQs returns n vectors without eventfds, unmasked.
func NewIRQs(n int) *IRQs {
	q := &IRQs{vectors: make([]vector, n)}
	for i := range q.vectors {
		q.vectors[i].fd = -1
	}
	return q
}

// Len returns the number of vectors.
func (q *IRQs) Len() int { return len(q.vectors) }

// Trigger raises a vector. Vectors that do not exist are ignored.
func (q *IRQs) Trigger(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if n >= 0 && n < len(q.vectors) {
		q.vectors[n].trigger()
	}
}

// Pending reports whether a vector was triggered and waits to be signalled: its
// bit of the Pending Bit Array.
func (q *IRQs) Pending(n int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return n >= 0 && n < len(q.vectors) && q.vectors[n].pending
}

// ClearPending forgets what was triggered and not signalled, as on reset.
func (q *IRQs) ClearPending() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range q.vectors {
		q.vectors[i].pending = false
	}
}

// Disable closes every eventfd and clears masks and pending bits.
func (q *IRQs) Disable() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range q.vectors {
		closeFD(q.vectors[i].fd)
		q.vectors[i] = vector{fd: -1}
	}
}

// set acts on a checked SET_IRQS request. Descriptors it takes over are set to
// -1 in fds.
func (q *IRQs) set(r *request, fds []int) error {
	if r.count == 0 {
		if r.index == IRQMSIX {
			q.Disable()
		}
		return nil
	}
	if err := usable(fds); err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range int(r.count) {
		v := &q.vectors[int(r.start)+i]
		switch {
		case r.flags&irqDataBool != 0 && r.data[i] == 0:
		case r.flags&irqDataEventfd != 0:
			v.arm(fds, i)
		case r.flags&irqActionMask != 0:
			v.masked = true
		case r.flags&irqActionUnmask != 0:
			v.masked = false
			v.deliver()
		case r.flags&irqActionTrigger != 0:
			v.trigger()
		}
	}
	return nil
}

// usable refuses descriptors that a write could block on: the device triggers
// vectors from places that must not wait for the client. (Setting O_NONBLOCK
// here would change the client's end too.)
func usable(fds []int) error {
	for _, fd := range fds {
		fl, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err != nil {
			return fmt.Errorf("interrupt descriptor cannot be used: %w", err)
		}
		if fl&unix.O_NONBLOCK == 0 {
			return fmt.Errorf("interrupt descriptor is not O_NONBLOCK, open it with EFD_NONBLOCK: %w", unix.EINVAL)
		}
	}
	return nil
}

// arm gives v the i-th descriptor, or takes its own away if there are none.
func (v *vector) arm(fds []int, i int) {
	closeFD(v.fd)
	v.fd = -1
	if i < len(fds) {
		v.fd, fds[i] = fds[i], -1
		v.deliver()
	}
}

func (v *vector) trigger() {
	v.pending = true
	v.deliver()
}

func (v *vector) deliver() {
	if !v.pending || v.masked || v.fd < 0 {
		return
	}
	v.pending = false
	signal(v.fd)
}

// one is what is written to an eventfd to add 1 to it, in host order.
var one = [8]byte{1}

// signal writes to an eventfd. EAGAIN means its counter is full, so that its
// reader is awake anyway; other errors are the client's own doing.
func signal(fd int) {
	for {
		if _, err := unix.Write(fd, one[:]); err != unix.EINTR {
			return
		}
	}
}
