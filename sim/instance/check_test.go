package instance

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/sim/errcode"
)

func TestThePoolsListIsRead(t *testing.T) {
	require.Empty(t, poolCPUs(""))
	require.Equal(t, []uint32{2, 3, 4, 9}, poolCPUs("2-4,9"))
}

func TestWhatNitroCLIRefusesBeforeTheDriver(t *testing.T) {
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
		{checkCPUs(&RunSpec{CPUCount: 4}, "2-5"), 0},
		{checkCPUs(&RunSpec{CPUCount: 5}, "2-5"), errcode.InsufficientCPUs},
		{checkCPUs(&RunSpec{CPUIDs: []uint32{2, 5}}, "2-5"), 0},
		{checkCPUs(&RunSpec{CPUIDs: []uint32{2, 6}}, "2-5"), errcode.NoSuchCPUAvailableInPool},
		{checkCPUs(&RunSpec{CPUIDs: []uint32{6, 6}}, "2-5"), errcode.InvalidCPUConfiguration},
		{checkMemory(64, 16*mib), 0},
		{checkMemory(63, 16*mib), errcode.InsufficientMemoryRequested},
		{checkMemory(0, 1), errcode.InsufficientMemoryRequested},
		{checkMemory(math.MaxUint64, 1), errcode.InsufficientMemoryAvailable},
		{noEnclave("hello", "none is running"), errcode.EnclaveNaming},
		{noEnclave("i-0123-enc7", "none is running"), errcode.Socket},
	} {
		require.Equal(t, test.code, errcode.Of(test.err), "%v", test.err)
	}
}
