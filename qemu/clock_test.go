package qemu

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheKernelIsGivenTheFrequencyOfItsCounter(t *testing.T) {
	require.Equal(t, "tsc_early_khz=2596128 tsc=reliable no_timer_check lpj=10384513", tcgCmdline(2596128180))
	require.Equal(t, "tsc_early_khz=1000000 tsc=reliable no_timer_check lpj=4000000", tcgCmdline(1e9))
}
