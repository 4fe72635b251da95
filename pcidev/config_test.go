package pcidev

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/pcidev/vfiouser"
)

func TestConfigurationSpace(t *testing.T) {
	b := newBench(t, false)
	read := func(off uint64, n int) []byte {
		p := make([]byte, n)
		require.NoError(t, b.RegionRead(vfiouser.RegionConfig, off, p))
		return p
	}
	write := func(off uint64, p ...byte) { require.NoError(t, b.RegionWrite(vfiouser.RegionConfig, off, p)) }

	require.Equal(t, []byte{0x0f, 0x1d, 0xc1, 0xe4}, read(0, 4), "vendor, device")
	require.Equal(t, []byte{0x00, 0x00, 0x80, 0x08}, read(8, 4), "revision, class")
	require.Equal(t, []byte{0x0f, 0x1d, 0xc1, 0xe4}, read(0x2c, 4), "subsystem")

	// The capability list holds MSI-X: two vectors, table and PBA in BAR 0.
	require.EqualValues(t, 0x10, read(6, 1)[0]&0x10)
	at := uint64(read(0x34, 1)[0])
	require.Equal(t, []byte{0x11, 0, 1, 0, 0, 0, 0, 0, 0, 8, 0, 0}, read(at, 12))

	// Sizing: all ones reads back the size; only BARs 0 and 3 are there.
	for i := range uint64(6) {
		write(0x10+4*i, 0xff, 0xff, 0xff, 0xff)
		size := map[uint64]uint32{0: MSIXBARSize, 3: BARSize}[i]
		require.Equal(t, -size, le.Uint32(read(0x10+4*i, 4)), "BAR %d", i)
	}
	write(0x1c, 0, 0x40, 0, 0xfe)
	require.Equal(t, []byte{0, 0x40, 0, 0xfe}, read(0x1c, 4))

	write(0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff)
	require.Equal(t, []byte{0x0f, 0x1d, 0xc1, 0xe4, 0x06, 0x04, 0x10, 0x00}, read(0, 8))
	write(at, 0xff, 0xff, 0xff, 0xff, 0xff)
	require.Equal(t, []byte{0x11, 0, 1, 0xc0, 0}, read(at, 5), "enable and mask bits")
	write(ConfigSize-1, 1)
	require.Equal(t, []byte{0}, read(ConfigSize-1, 1))
}

func TestMSIXTable(t *testing.T) {
	b := newBench(t, false)
	all := func() []byte {
		p := make([]byte, MSIXBARSize)
		require.NoError(t, b.RegionRead(MSIXBAR, 0, p))
		return p
	}
	masked := make([]byte, MSIXBARSize)
	masked[12], masked[28] = 1, 1
	require.Equal(t, masked, all(), "all masked after reset")

	ones := make([]byte, MSIXBARSize)
	for i := range ones {
		ones[i] = 0xff
	}
	require.NoError(t, b.RegionWrite(MSIXBAR, 0, ones))
	entry := []byte{0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0}
	want := make([]byte, MSIXBARSize)
	copy(want, append(entry, entry...))
	require.Equal(t, want, all(), "nothing else can be written, the pending bits least")

	b.irqs.pending[NEVecEvent] = true
	require.EqualValues(t, 2, all()[MSIXPBA])
}
