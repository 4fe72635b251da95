package nedriver

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// maxPhysRegions is how many pages a memory region may have: the array of their physical regions, 16 bytes each,
// must fit in one kernel allocation. Source: KMALLOC_MAX_SIZE (4 MiB on x86) and kcalloc of struct range.
const maxPhysRegions = 4 << 20 / 16

// span is a run of pages that lie one behind the other in a memory's file. It has a reference on the memory.
type span struct {
	mem       *memory
	off, size uint64
}

// extents calls f for each extent that the span lies in.
func (s span) extents(f func(extent) error) error {
	for i := s.off / s.mem.extents[0].size; i < uint64(len(s.mem.extents)) && s.mem.extents[i].off < s.off+s.size; i++ {
		if err := f(s.mem.extents[i]); err != nil {
			return err
		}
	}
	return nil
}

// memRegion is a region of user memory that an enclave has.
type memRegion struct {
	addr, size uint64 // as the program gave it
	spans      []span
	phys       []physRegion
	shared     []extent // what of it the device can reach
	donated    uint64   // bytes that the device has taken, from the first page on
}

// overlaps reports whether user addresses addr to addr+size are partly the region's.
func (r *memRegion) overlaps(addr, size uint64) bool {
	return r.addr <= addr && addr < r.addr+r.size || addr <= r.addr && addr+size > r.addr
}

// pin fills the region with the pages behind its user addresses, each checked to be what an enclave on the given
// NUMA node can use. After an error the caller releases what there is.
func (r *memRegion) pin(p *Process, node int) error {
	maxPages := r.size / minMemRegionSize
	if maxPages > maxPhysRegions {
		return fmt.Errorf("memory region of %d bytes is too large: %w", r.size, unix.ENOMEM)
	}
	for pages, got := uint64(0), uint64(0); pages == 0 || got < r.size; pages++ {
		if pages == maxPages {
			return fmt.Errorf("memory region of %d bytes has no room for a page: %w", r.size, unix.ENOMEM)
		}
		pg, err := p.find(r.addr + got)
		if err != nil {
			return err
		}
		if err := r.add(pg, node); err != nil {
			pg.mem.put() // the Linux driver loses this page
			return err
		}
		got += pg.size
	}
	return nil
}

// add checks a page and appends it; its reference is the region's then.
func (r *memRegion) add(pg page, node int) (err error) {
	switch {
	case !isHugePage(pg.mem.pageSize):
		return NEErrMemNotHugePage
	case pg.size%minMemRegionSize != 0:
		return NEErrInvalidPageSize
	case pg.mem.node != node:
		return NEErrMemDifferentNUMANode
	}
	if r.phys, err = mergePhysRegion(r.phys, physRegion{pg.phys, pg.size}); err != nil {
		return err
	}
	if n := len(r.spans); n > 0 && r.spans[n-1].mem == pg.mem && r.spans[n-1].off+r.spans[n-1].size == pg.off {
		r.spans[n-1].size += pg.size
		pg.mem.put() // the span has one already
		return nil
	}
	r.spans = append(r.spans, span{pg.mem, pg.off, pg.size})
	return nil
}

// share lets the device reach the region's memory.
func (r *memRegion) share(t *dmaTable) error {
	for _, s := range r.spans {
		err := s.extents(func(e extent) error {
			err := t.share(s.mem, e)
			if err == nil {
				r.shared = append(r.shared, e)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// release gives the region's memory back: what the device had taken is zero, the device cannot reach it, and
// its pages return to their pool unless they are still mapped.
func (r *memRegion) release(t *dmaTable) error {
	var errs []error
	left := r.donated
	for _, s := range r.spans {
		n := min(left, s.size)
		if n > 0 {
			errs = append(errs, s.mem.zero(s.off, n))
		}
		left -= n
	}
	for _, e := range r.shared {
		errs = append(errs, t.unshare(e))
	}
	for _, s := range r.spans {
		s.mem.put()
	}
	r.spans, r.shared, r.donated = nil, nil, 0
	return join(errs...)
}
