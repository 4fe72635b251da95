package instance

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/dustin/go-humanize/english"

	"github.com/nesim/nesim/sim/errcode"
	"github.com/nesim/nesim/sim/vsock"
)

// memoryPerImage is how many times its image's size an enclave's memory must be: ENCLAVE_MEMORY_EIF_SIZE_RATIO of
// nitro-cli's resource_manager.rs.
const memoryPerImage = 4

// Bounds of a RunSpec, far beyond what an instance or a person uses.
const (
	maxName   = 255  // bytes of an enclave's name, as of a file's (NAME_MAX in linux/limits.h)
	maxCPUIDs = 4096 // CPUs named for one enclave (NR_CPUS is 8192 at most, two threads a core)
)

// Check refuses what no instance could run, whatever its CPUs and memory, for which RunEnclave looks itself. A command calls it before it asks the daemon,
// and RunEnclave for every request.
func (s *RunSpec) Check() error {
	if err := checkText("the path of the image", s.EIFPath); err != nil {
		return err
	}
	if err := checkText("the enclave's name", s.Name); err != nil {
		return err
	}
	switch {
	case s.EIFPath == "":
		return errcode.New(errcode.MissingArgument, "the image is missing: name an Enclave Image File")
	case !filepath.IsAbs(s.EIFPath):
		return errcode.New(errcode.InvalidArgument, "the path of the image, %q, must be absolute", s.EIFPath)
	case len(s.Name) > maxName:
		return errcode.New(errcode.InvalidArgument, "the enclave's name has %d bytes: choose one of at most %d", len(s.Name), maxName)
	case s.CPUCount != 0 && len(s.CPUIDs) > 0:
		return errcode.New(errcode.ConflictingArgument, "CPU count and CPU IDs exclude each other: leave one out")
	case len(s.CPUIDs) > maxCPUIDs:
		return errcode.New(errcode.InvalidCPUConfiguration, "%d CPUs are named: no instance has more than %d", len(s.CPUIDs), maxCPUIDs)
	}
	return CheckCID(s.CID)
}

// checkText refuses what JSON, paths and terminals do not carry unchanged. nitro-cli takes UTF-8 alone, too.
func checkText(what, text string) error {
	switch {
	case !utf8.ValidString(text):
		return errcode.New(errcode.InvalidArgument, "%s, %q, is not UTF-8: rename it", what, text)
	case strings.ContainsRune(text, 0):
		return errcode.New(errcode.InvalidArgument, "%s, %q, has a NUL byte in it", what, text)
	}
	return nil
}

// CheckCID refuses a CID that no enclave may have, as nitro-cli does before it asks the driver. 0 leaves the choice.
func CheckCID(cid uint64) error {
	switch {
	case cid == uint64(vsock.CIDParent):
		return errcode.New(errcode.InvalidArgument, "the CID %d is the parent's: take one from 4 to %d, or 0 for any", cid, math.MaxUint32-1)
	case cid > 0 && cid < uint64(vsock.CIDParent), cid == math.MaxUint32:
		return errcode.New(errcode.InvalidArgument, "the CID %d is reserved: take one from 4 to %d, or 0 for any", cid, math.MaxUint32-1)
	case cid > math.MaxUint32:
		return errcode.New(errcode.InvalidArgument, "the CID %d has more than 32 bits: take one from 4 to %d, or 0 for any", cid, math.MaxUint32-1)
	}
	return nil
}

// CheckCPUCount refuses a count of CPUs that are not whole cores, with the code that nitro-cli has for the driver's
// refusal: NE_ERR_NO_VCPUS_ADDED or NE_ERR_FULL_CORES_NOT_USED at NE_START_ENCLAVE.
func CheckCPUCount(count, threadsPerCore int) error {
	give := fmt.Sprintf("give %d or a multiple of it", threadsPerCore)
	if threadsPerCore == 1 {
		give = "give 1 or more"
	}
	switch {
	case count < 1:
		return errcode.New(errcode.IoctlFailure, "an enclave needs at least one CPU core, not %d CPUs: %s", count, give)
	case count%threadsPerCore != 0:
		return errcode.New(errcode.IoctlFailure, "an enclave is given whole CPU cores, of %d CPUs each, not %s: %s",
			threadsPerCore, english.Plural(count, "CPU", ""), give)
	}
	return nil
}

// checkCPUs refuses CPUs that the pool, a CPU list of these CPUs, does not have, as nitro-cli does before it asks the driver.
func checkCPUs(spec *RunSpec, pool string, has []int, threadsPerCore int) error {
	if len(spec.CPUIDs) == 0 {
		if spec.CPUCount > len(has) {
			return errcode.New(errcode.InsufficientCPUs, "%s requested, and the CPU pool has %d (%s): request fewer, or see nesim serve --ne-cpus",
				english.Plural(spec.CPUCount, "CPU", ""), len(has), pool)
		}
		return CheckCPUCount(spec.CPUCount, threadsPerCore)
	}
	for i, id := range spec.CPUIDs {
		if slices.Contains(spec.CPUIDs[:i], id) {
			return errcode.New(errcode.InvalidCPUConfiguration, "CPU %d is named twice: name each CPU once", id)
		}
	}
	for _, id := range spec.CPUIDs {
		if !slices.Contains(has, int(id)) {
			return errcode.New(errcode.NoSuchCPUAvailableInPool, "CPU %d is not in the pool %s: choose from it, or see nesim serve --ne-cpus", id, pool)
		}
	}
	return nil
}

// checkMemory refuses less memory than nitro-cli gives an image of so many bytes.
func checkMemory(memoryMiB uint64, imageSize int64, host HostMemory) error {
	need := memoryPerImage * ((uint64(imageSize) + mib - 1) / mib)
	switch {
	case memoryMiB == 0:
		return errcode.New(errcode.InsufficientMemoryRequested, "an enclave needs memory: give --memory at least %d", max(need, 64))
	case memoryMiB > math.MaxInt64/mib, host.Total > 0 && memoryMiB > host.Total/mib:
		return errcode.New(errcode.InsufficientMemoryAvailable, "%d MiB of memory requested, and this host has %d MiB, of which %d MiB are available: request less",
			memoryMiB, host.Total/mib, host.Available/mib)
	case memoryMiB*mib < memoryPerImage*uint64(imageSize):
		return errcode.New(errcode.InsufficientMemoryRequested,
			"the image of %d MiB does not fit into %d MiB of memory, which must be %d times as much: give --memory at least %d",
			(imageSize+mib-1)/mib, memoryMiB, memoryPerImage, max(need, 64))
	}
	return nil
}
