package steps

import (
	"context"
	"fmt"

	"github.com/nesim/nesim/scenarios"
	"github.com/nesim/nesim/scenarios/trace"
)

var terminateStep = kind[Terminate]("terminate", "close the enclave's descriptor and wait until nothing is left of the enclave")

// Terminate ends an enclave as terminate-enclave does.
type Terminate struct {
	Enclave string `yaml:"enclave" required:"true"`
}

// Check implements [scenarios.Action].
func (s *Terminate) Check(c *scenarios.Checker) { c.Uses(scenarios.Enclave, s.Enclave) }

// Do implements [Action].
func (s *Terminate) Do(ctx context.Context, w *World, b Branch) error {
	if err := w.closeEnclave(b, s.Enclave); err != nil {
		return err
	}
	e, err := w.enclave(s.Enclave)
	if err != nil {
		return err
	}
	return w.until(ctx, b, func() error {
		if _, exists := w.Stage.Hypervisor.Slot(e.slot); exists {
			return mismatch("its slot still exists")
		}
		return nil
	})
}

// closeEnclave closes an enclave's descriptor.
func (w *World) closeEnclave(b Branch, name string) error {
	e, err := w.enclave(name)
	if err != nil {
		return err
	}
	e.stopListening()
	w.measure(b, e)
	return w.call(b, name, "close", func() (string, error) { return "", e.file.Close() })
}

// measure finds out what the enclave costs beside its RAM: once it is up, and before it is ended.
func (w *World) measure(b Branch, e *enclave) {
	n := w.Stage.VMMMemory(e.slot)
	if n == 0 {
		return
	}
	w.Note(b, e.name, trace.Note, fmt.Sprintf("its VMM takes %d MiB beside the enclave's RAM", n>>20))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.vmmMemory = max(w.vmmMemory, n)
}
