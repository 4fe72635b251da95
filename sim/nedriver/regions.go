package nedriver

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// minMemRegionSize is the granule of enclave memory in bytes: addresses and sizes are multiples of it.
// Source: NE_MIN_MEM_REGION_SIZE, drivers/virt/nitro_enclaves/ne_misc_dev.c.
const minMemRegionSize = 2 << 20

// physRegion is a run of physical memory: start address and size in bytes.
type physRegion struct{ start, size uint64 }

func (r physRegion) check() error {
	if r.size%minMemRegionSize != 0 {
		return fmt.Errorf("physical memory region at %#x: size %#x is not a multiple of 2 MiB: %w", r.start, r.size, unix.EINVAL)
	}
	if r.start%minMemRegionSize != 0 {
		return fmt.Errorf("physical memory region at %#x is not 2 MiB aligned: %w", r.start, unix.EINVAL)
	}
	return nil
}

// mergePhysRegion adds r to regions: it lengthens the last region when r follows it directly, and becomes a new
// one otherwise. EINVAL, and regions as they were, when r is not made of 2 MiB granules.
func mergePhysRegion(regions []physRegion, r physRegion) ([]physRegion, error) {
	if err := r.check(); err != nil {
		return regions, err
	}
	if n := len(regions); n > 0 && regions[n-1].start+regions[n-1].size == r.start {
		regions[n-1].size += r.size
		return regions, nil
	}
	return append(regions, r), nil
}
