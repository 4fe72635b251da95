package hypervisor

import (
	"fmt"

	"github.com/nesim/nesim/pcidev"
	"golang.org/x/sys/unix"
)

const (
	regionAlign = 2 << 20  // NE_MIN_MEM_REGION_SIZE (ne_misc_dev.c): of a region's address and size, in bytes
	minMemory   = 64 << 20 // NE_MIN_ENCLAVE_MEM_SIZE (ne_misc_dev.c): bytes of an enclave
	imageOffset = 8 << 20  // NE_EIF_LOAD_OFFSET (ne_misc_dev.c): where the EIF begins, in bytes
)

// region is a range of the parent's physical memory.
type region struct{ paddr, size uint64 }

func (r region) overlaps(o region) bool { return r.paddr < o.paddr+o.size && o.paddr < r.paddr+r.size }

// donation is a slot's memory: its regions, end to end in the order in which they were added, as nitro-cli fills
// them. Offsets are int64 from its start.
type donation struct {
	mem     pcidev.Memory
	regions []region
	size    int64
}

// each calls f for the pieces of [off, off+n), which must lie inside, in order.
func (d *donation) each(off, n int64, f func(paddr uint64, at, n int64) error) error {
	if off < 0 || n < 0 || off > d.size-n {
		return fmt.Errorf("%d bytes at offset %d of %d donated bytes: %w", n, off, d.size, unix.EFAULT)
	}
	var at int64
	for _, r := range d.regions {
		size := int64(r.size)
		if off < size && n > 0 {
			m := min(size-off, n)
			if err := f(r.paddr+uint64(off), at, m); err != nil {
				return err
			}
			at, off, n = at+m, 0, n-m
		} else {
			off -= size
		}
	}
	return nil
}

// ReadAt is an io.ReaderAt of the donation, but for short reads: they are errors.
func (d *donation) ReadAt(p []byte, off int64) (int, error) {
	err := d.each(off, int64(len(p)), func(paddr uint64, at, n int64) error {
		return d.mem.ReadAt(p[at:at+n], paddr)
	})
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

func (d *donation) writeAt(p []byte, off int64) error {
	return d.each(off, int64(len(p)), func(paddr uint64, at, n int64) error {
		return d.mem.WriteAt(p[at:at+n], paddr)
	})
}

func (d *donation) zero(off, n int64) error {
	return d.each(off, n, func(paddr uint64, _, n int64) error { return d.mem.Zero(paddr, uint64(n)) })
}

// clear zeroes all but n bytes at off, which are zero already. The page in which they end it does again: only a page
// that is zeroed as a whole can be given back.
func (d *donation) clear(off, n int64) error {
	if err := d.zero(0, off); err != nil {
		return err
	}
	end := (off + n) / regionAlign * regionAlign
	return d.zero(end, d.size-end)
}
