package nedriver

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Errno is an error code of the Nitro Enclaves driver's own, above the range of the kernel's errno values.
// Source: the NE_ERR_* constants of include/uapi/linux/nitro_enclaves.h.
type Errno uint16

// The NE_ERR_* codes of include/uapi/linux/nitro_enclaves.h.
const (
	NEErrVCPUAlreadyUsed        Errno = 256 // NE_ERR_VCPU_ALREADY_USED
	NEErrVCPUNotInCPUPool       Errno = 257 // NE_ERR_VCPU_NOT_IN_CPU_POOL
	NEErrVCPUInvalidCPUCore     Errno = 258 // NE_ERR_VCPU_INVALID_CPU_CORE
	NEErrInvalidMemRegionSize   Errno = 259 // NE_ERR_INVALID_MEM_REGION_SIZE
	NEErrInvalidMemRegionAddr   Errno = 260 // NE_ERR_INVALID_MEM_REGION_ADDR
	NEErrUnalignedMemRegionAddr Errno = 261 // NE_ERR_UNALIGNED_MEM_REGION_ADDR
	NEErrMemRegionAlreadyUsed   Errno = 262 // NE_ERR_MEM_REGION_ALREADY_USED
	NEErrMemNotHugePage         Errno = 263 // NE_ERR_MEM_NOT_HUGE_PAGE
	NEErrMemDifferentNUMANode   Errno = 264 // NE_ERR_MEM_DIFFERENT_NUMA_NODE
	NEErrMemMaxRegions          Errno = 265 // NE_ERR_MEM_MAX_REGIONS
	NEErrNoMemRegionsAdded      Errno = 266 // NE_ERR_NO_MEM_REGIONS_ADDED
	NEErrNoVCPUsAdded           Errno = 267 // NE_ERR_NO_VCPUS_ADDED
	NEErrEnclaveMemMinSize      Errno = 268 // NE_ERR_ENCLAVE_MEM_MIN_SIZE
	NEErrFullCoresNotUsed       Errno = 269 // NE_ERR_FULL_CORES_NOT_USED
	NEErrNotInInitState         Errno = 270 // NE_ERR_NOT_IN_INIT_STATE
	NEErrInvalidVCPU            Errno = 271 // NE_ERR_INVALID_VCPU
	NEErrNoCPUsAvailInPool      Errno = 272 // NE_ERR_NO_CPUS_AVAIL_IN_POOL
	NEErrInvalidPageSize        Errno = 273 // NE_ERR_INVALID_PAGE_SIZE
	NEErrInvalidFlagValue       Errno = 274 // NE_ERR_INVALID_FLAG_VALUE
	NEErrInvalidEnclaveCID      Errno = 275 // NE_ERR_INVALID_ENCLAVE_CID
)

var errnoTexts = map[Errno]struct{ name, text string }{
	NEErrVCPUAlreadyUsed:        {"NE_ERR_VCPU_ALREADY_USED", "this enclave has the vCPU already"},
	NEErrVCPUNotInCPUPool:       {"NE_ERR_VCPU_NOT_IN_CPU_POOL", "the CPU is not free in the enclave CPU pool"},
	NEErrVCPUInvalidCPUCore:     {"NE_ERR_VCPU_INVALID_CPU_CORE", "the CPU's core is outside the enclave CPU pool"},
	NEErrInvalidMemRegionSize:   {"NE_ERR_INVALID_MEM_REGION_SIZE", "the memory region's size is not a multiple of 2 MiB"},
	NEErrInvalidMemRegionAddr:   {"NE_ERR_INVALID_MEM_REGION_ADDR", "the memory region is not in the user address range"},
	NEErrUnalignedMemRegionAddr: {"NE_ERR_UNALIGNED_MEM_REGION_ADDR", "the memory region's address is not 2 MiB aligned"},
	NEErrMemRegionAlreadyUsed:   {"NE_ERR_MEM_REGION_ALREADY_USED", "the memory region overlaps one this enclave has already"},
	NEErrMemNotHugePage:         {"NE_ERR_MEM_NOT_HUGE_PAGE", "the memory region is not made of huge pages"},
	NEErrMemDifferentNUMANode:   {"NE_ERR_MEM_DIFFERENT_NUMA_NODE", "the memory is on another NUMA node than the enclave's CPUs"},
	NEErrMemMaxRegions:          {"NE_ERR_MEM_MAX_REGIONS", "the enclave has as many memory regions as it may; use larger huge pages"},
	NEErrNoMemRegionsAdded:      {"NE_ERR_NO_MEM_REGIONS_ADDED", "the enclave has no memory; set a memory region before the start"},
	NEErrNoVCPUsAdded:           {"NE_ERR_NO_VCPUS_ADDED", "the enclave has no vCPU; add vCPUs before the start"},
	NEErrEnclaveMemMinSize:      {"NE_ERR_ENCLAVE_MEM_MIN_SIZE", "the enclave has less than 64 MiB of memory"},
	NEErrFullCoresNotUsed:       {"NE_ERR_FULL_CORES_NOT_USED", "the enclave has only part of a core; add every thread of it"},
	NEErrNotInInitState:         {"NE_ERR_NOT_IN_INIT_STATE", "the enclave has been started already"},
	NEErrInvalidVCPU:            {"NE_ERR_INVALID_VCPU", "there is no CPU of that number"},
	NEErrNoCPUsAvailInPool:      {"NE_ERR_NO_CPUS_AVAIL_IN_POOL", "no CPU is free in the enclave CPU pool"},
	NEErrInvalidPageSize:        {"NE_ERR_INVALID_PAGE_SIZE", "the memory's page size is not a multiple of 2 MiB, or the region starts inside a page"},
	NEErrInvalidFlagValue:       {"NE_ERR_INVALID_FLAG_VALUE", "the flags are not valid"},
	NEErrInvalidEnclaveCID:      {"NE_ERR_INVALID_ENCLAVE_CID", "the CID is not for enclaves: take 0 (chosen), or 4 to 4294967294"},
}

// Name returns the code's name in the UAPI header, such as "NE_ERR_INVALID_VCPU".
func (e Errno) Name() string {
	if t, ok := errnoTexts[e]; ok {
		return t.name
	}
	return fmt.Sprintf("NE_ERR_%d", uint16(e))
}

// Error says what is wrong, with the code's name for those who know it.
func (e Errno) Error() string {
	if t, ok := errnoTexts[e]; ok {
		return fmt.Sprintf("%s (%s)", t.text, t.name)
	}
	return fmt.Sprintf("unknown Nitro Enclaves error %d", uint16(e))
}

// Code returns the number that user space would find in errno for err: an NE_ERR_* code, a kernel errno, EIO
// for any other error, and 0 for nil.
func Code(err error) int {
	var ne Errno
	var kernel unix.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &ne):
		return int(ne)
	case errors.As(err, &kernel):
		return int(kernel)
	}
	return int(unix.EIO)
}

// join is errors.Join on one line.
func join(errs ...error) (joined error) {
	for _, err := range errs {
		switch {
		case err == nil:
		case joined == nil:
			joined = err
		default:
			joined = fmt.Errorf("%w; %w", joined, err)
		}
	}
	return joined
}
