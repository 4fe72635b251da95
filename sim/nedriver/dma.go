package nedriver

import (
	"errors"
	"fmt"
	"sync"
)

// dmaTable keeps what physical memory the device can reach, and how many regions of enclaves need it to.
type dmaTable struct {
	dev pciDevice

	mu   sync.Mutex
	refs map[uint64]int // by an extent's physical address
}

func newDMATable(dev pciDevice) *dmaTable {
	return &dmaTable{dev: dev, refs: make(map[uint64]int)}
}

// share lets the device reach an extent of mem.
func (t *dmaTable) share(mem *memory, e extent) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.refs[e.phys] == 0 {
		if err := t.dev.dmaMap(e.phys, e.size, mem.file, e.off); err != nil {
			return fmt.Errorf("share memory at %#x with the device: %w", e.phys, err)
		}
	}
	t.refs[e.phys]++
	return nil
}

// unshare undoes one share. A device that has gone reaches nothing any more.
func (t *dmaTable) unshare(e extent) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.refs[e.phys]--; t.refs[e.phys] > 0 {
		return nil
	}
	delete(t.refs, e.phys)
	if err := t.dev.dmaUnmap(e.phys, e.size); err != nil && !errors.Is(err, ErrDeviceGone) {
		return fmt.Errorf("take memory at %#x back from the device: %w", e.phys, err)
	}
	return nil
}
