package hypervisor

import (
	"context"
	"errors"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrUnbootable marks what keeps an enclave from booting and is the fault of its image: no image, a damaged or wrongly
// signed one, no kernel in it. A VMM wraps it too. It is not an error of ENCLAVE_START: see [Hypervisor.Slot].
var ErrUnbootable = errors.New("the enclave image cannot boot")

// unbootable is an image's fault, with a text for people.
type unbootable struct {
	text  string
	cause error // may be nil
}

func (u *unbootable) Error() string {
	if u.cause != nil {
		return u.text + ": " + u.cause.Error()
	}
	return u.text
}

func (u *unbootable) Unwrap() []error {
	if u.cause != nil {
		return []error{ErrUnbootable, u.cause}
	}
	return []error{ErrUnbootable}
}

// An inert VM is what runs in place of an image that cannot boot: it has the slot's memory and vCPUs, takes no
// processor time, sends nothing, and ends when it is stopped. docs/fidelity.md says why.
type inert struct {
	stopped chan struct{}
	stop    func()
}

func newInert() *inert {
	stopped := make(chan struct{})
	return &inert{stopped, sync.OnceFunc(func() { close(stopped) })}
}

// Wait implements VM.
func (v *inert) Wait() Exit {
	<-v.stopped
	return Exit{Reason: ExitAsked}
}

// Stop implements VM.
func (v *inert) Stop(context.Context) error {
	v.stop()
	return nil
}

// runInert takes the memory of a busy slot from the parent, whatever is in it, and returns an inert VM because of why.
func (sl *slot) runInert(why error) (VM, error) {
	h := sl.session.h
	if err := sl.mem.zero(0, sl.mem.size); err != nil {
		return nil, &refusal{unix.EFAULT, "take the parent's memory", err}
	}
	h.mu.Lock()
	sl.unbootable = why
	h.mu.Unlock()
	h.observe(Event{Kind: ImageUnbootable, SlotUID: sl.uid, CID: sl.cid, Err: why})
	return newInert(), nil
}
