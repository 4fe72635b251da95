package pcidev

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/pcidev/vfiouser"
)

func newFuzzDevice(t *testing.T) *Device {
	d, err := NewDevice(quietHypervisor{}, allMemory{}, &fakeInterrupts{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

// FuzzAccess does accesses of any size, at any offset, of any region, in any order:
// five bytes each (what, offset, length) and then their data.
func FuzzAccess(f *testing.F) {
	f.Add([]byte{3 | 0x80, 2, 0, 2, 0, 1, 0, 3 | 0x80, 0, 0, 1, 0, 1, 3 | 0x80, 4, 0, 4, 0, 4, 0, 0, 0, 3, 0, 1, 72, 0})
	f.Add([]byte{7 | 0x80, 16, 0, 4, 0, 255, 255, 255, 255, 7, 16, 0, 4, 0})
	f.Add([]byte{0x80, 0, 0, 32, 0, 0, 8, 0, 1, 0, 0x40})
	f.Fuzz(func(t *testing.T, data []byte) {
		d := newFuzzDevice(t)
		regions := d.Regions()
		for len(data) >= 5 {
			what, off, n := data[0], uint64(le.Uint16(data[1:])), int(le.Uint16(data[3:]))
			data = data[5:]
			region := uint32(what & 0x0f)
			if what&0x40 != 0 {
				require.NoError(t, d.Reset())
				continue
			}
			if region >= vfiouser.NumRegions || regions[region].Size == 0 {
				continue
			}
			off %= regions[region].Size
			n = min(n, int(regions[region].Size-off))
			if what&0x80 == 0 {
				require.NoError(t, d.RegionRead(region, off, make([]byte, n)))
				continue
			}
			n = min(n, len(data))
			require.NoError(t, d.RegionWrite(region, off, data[:n]))
			data = data[n:]
		}
		var ids [4]byte
		require.NoError(t, d.RegionRead(vfiouser.RegionConfig, 0, ids[:]))
		require.Equal(t, []byte{0x0f, 0x1d, 0xc1, 0xe4}, ids[:])
	})
}

// FuzzCommand sends a command of any type with any payload: it is answered once,
// and what is decoded encodes to the same bytes.
func FuzzCommand(f *testing.F) {
	for c := range CmdMax + 2 {
		f.Add(uint32(c), u64s(7, 3, 1))
	}
	f.Add(uint32(CmdSlotAddVCPU), make([]byte, 12))
	f.Fuzz(func(t *testing.T, cmd uint32, payload []byte) {
		if req, err := DecodeRequest(Command(cmd), payload); err == nil {
			require.Equal(t, Command(cmd), req.Command())
			again, err := DecodeRequest(req.Command(), req.Append(nil))
			require.NoError(t, err)
			require.Equal(t, req, again)
			require.Len(t, req.Append(nil), requestSizes[cmd])
		}
		b := &bench{TB: t, Device: newFuzzDevice(t)}
		b.switchOn()
		re := b.request(Command(cmd), payload[:min(len(payload), NESendDataSize)]...)
		require.LessOrEqual(t, re.RC, int32(0))
		require.Equal(t, 1, b.replies())
	})
}
