package instance

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/sim/errcode"
)

func TestWhatNitroCLIRefusesBeforeTheDriver(t *testing.T) {
	pool := []int{2, 3, 4, 5}
	host := HostMemory{Total: 4096 * mib, Available: 1024 * mib}
	for _, test := range []struct {
		err  error
		code errcode.Code
	}{
		{CheckCID(0), 0},
		{CheckCID(4), 0},
		{CheckCID(math.MaxUint32 - 1), 0},
		{CheckCID(1), errcode.InvalidArgument},
		{CheckCID(3), errcode.InvalidArgument},
		{CheckCID(math.MaxUint32), errcode.InvalidArgument},
		{CheckCID(math.MaxUint64), errcode.InvalidArgument},
		{checkCPUs(&RunSpec{CPUCount: 4}, "2-5", pool, 2), 0},
		{checkCPUs(&RunSpec{CPUCount: 5}, "2-5", pool, 2), errcode.InsufficientCPUs},
		{checkCPUs(&RunSpec{CPUIDs: []uint32{2, 5}}, "2-5", pool, 2), 0},
		{checkCPUs(&RunSpec{CPUIDs: []uint32{2, 6}}, "2-5", pool, 2), errcode.NoSuchCPUAvailableInPool},
		{checkCPUs(&RunSpec{CPUIDs: []uint32{6, 6}}, "2-5", pool, 2), errcode.InvalidCPUConfiguration},
		{checkCPUs(&RunSpec{CPUCount: 3}, "2-5", pool, 2), errcode.IoctlFailure},
		{checkCPUs(&RunSpec{CPUCount: 3}, "2-5", pool, 1), 0},
		{checkCPUs(&RunSpec{}, "2-5", pool, 1), errcode.IoctlFailure},
		{CheckCPUCount(-2, 2), errcode.IoctlFailure},
		{checkMemory(64, 16*mib, host), 0},
		{checkMemory(63, 16*mib, host), errcode.InsufficientMemoryRequested},
		{checkMemory(0, 1, host), errcode.InsufficientMemoryRequested},
		{checkMemory(4096, 1, host), 0},
		{checkMemory(4097, 1, host), errcode.InsufficientMemoryAvailable},
		{checkMemory(4097, 1, HostMemory{}), 0},
		{checkMemory(math.MaxUint64, 1, host), errcode.InsufficientMemoryAvailable},
		{noEnclave(Ref{Name: "hello"}, "none is running"), errcode.EnclaveNaming},
		{noEnclave(Ref{ID: "i-0123-enc7"}, "none is running"), errcode.Socket},
	} {
		require.Equal(t, test.code, errcode.Of(test.err), "%v", test.err)
	}
}

func TestRefusalsSayWhatToGive(t *testing.T) {
	require.EqualError(t, CheckCPUCount(1, 2), "an enclave is given whole CPU cores, of 2 CPUs each, not 1 CPU: give 2 or a multiple of it")
	require.EqualError(t, CheckCPUCount(0, 2), "an enclave needs at least one CPU core, not 0 CPUs: give 2 or a multiple of it")
	require.EqualError(t, CheckCPUCount(0, 1), "an enclave needs at least one CPU core, not 0 CPUs: give 1 or more")
	require.EqualError(t, checkCPUs(&RunSpec{CPUCount: 1}, "", nil, 1), "1 CPU requested, and the CPU pool has 0 (): request fewer, or see nesim serve --ne-cpus")
	require.EqualError(t, checkMemory(1<<20, 1, HostMemory{Total: 4096 * mib, Available: 1024 * mib}),
		"1048576 MiB of memory requested, and this host has 4096 MiB, of which 1024 MiB are available: request less")
}

func TestTheHostsMemoryIsRead(t *testing.T) {
	host, err := ReadHostMemory()
	require.NoError(t, err)
	require.Positive(t, host.Available)
	require.LessOrEqual(t, host.Available, host.Total)
}

func TestNamesAndIDsDoNotStandForEachOther(t *testing.T) {
	older := &enclave{id: "i-0-enc1", name: "one"}
	newer := &enclave{id: "i-0-enc2", name: "i-0-enc1"} // named like the other's ID
	list := []*enclave{older, newer}
	for _, test := range []struct {
		ref  Ref
		want *enclave
	}{
		{Ref{ID: "i-0-enc1"}, older},
		{Ref{Name: "i-0-enc1"}, newer},
		{Ref{ID: "one"}, nil},
		{Ref{Name: "i-0-enc2"}, nil},
		{Ref{Word: "one"}, older},
		{Ref{Word: "i-0-enc2"}, newer},
		{Ref{Word: "two"}, nil},
		{Ref{}, nil},
	} {
		found, err := pick(test.ref, list)
		require.NoError(t, err)
		require.Same(t, test.want, found, "%+v", test.ref)
	}
	_, err := pick(Ref{Word: "i-0-enc1"}, list)
	require.ErrorContains(t, err, "one enclave's ID and another's name")
}
