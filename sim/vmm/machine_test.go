package vmm

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/eif/inspect"
	"github.com/nesim/nesim/qemu"
)

// kernel makes a bzImage (Documentation/arch/x86/boot.rst) whose payload unpacks to text.
func kernel(t *testing.T, text string) *bytes.Reader {
	t.Helper()
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err := z.Write([]byte(text))
	require.NoError(t, err)
	require.NoError(t, z.Close())
	header := make([]byte, 2*512)
	header[0x1f1] = 1
	copy(header[0x202:], "HdrS\x0f\x02")
	binary.LittleEndian.PutUint32(header[0x24c:], uint32(packed.Len()))
	return bytes.NewReader(append(header, packed.Bytes()...))
}

func TestTheMachineFollowsTheKernel(t *testing.T) {
	for text, want := range map[string][]qemu.MachineType{
		"a kernel with virtio_mmio.device": {qemu.Nitro},
		"a kernel without":                 {qemu.ACPI},
	} {
		k := kernel(t, text)
		types, why := MachineTypes(t.Context(), k, k.Size())
		require.Equal(t, want, types)
		require.NotEmpty(t, why)
	}
	k := kernel(t, "truncated")
	types, why := MachineTypes(t.Context(), k, k.Size()-1)
	require.Equal(t, []qemu.MachineType{qemu.Nitro, qemu.ACPI}, types)
	require.Equal(t, "the kernel cannot be looked into: the kernel is truncated: its compressed part does not lie within the file", why)
}

// A kernel unpacks itself at 16 MiB, its ramdisks lie at the end of the memory below 3 GiB, or of what the kernel takes.
func TestAKernelAndItsRamdisksMustNotOverlap(t *testing.T) {
	k := inspect.Kernel{End: 72 * mib, RamdiskMax: 2<<30 - 1}
	for _, test := range []struct {
		memory, ramdisks uint64 // MiB
		problem          string
	}{
		{64, 0, "the kernel takes 72 MiB of memory as it starts, and the enclave has 64 MiB: give it more"},
		{72, 0, ""},
		{72, 1, "do not fit"},
		{74, 1, ""},
		{128, 55, ""},
		{128, 56, "the image's ramdisks, of 56 MiB, do not fit into the memory between the kernel, up to 72 MiB, and the end of what " +
			"it takes ramdisks in, 128 MiB: give the enclave more memory, of which 3072 MiB count, or make the image smaller"},
		{1 << 20, 1975, ""},
		{1 << 20, 1976, "2048 MiB"},
		{1 << 20, 3000, "2048 MiB"},
		{1 << 20, 1 << 40, "2048 MiB"},
	} {
		err := checkLayout(k, test.ramdisks*mib, test.memory*mib)
		if test.problem == "" {
			require.NoError(t, err, "%+v", test)
		} else {
			require.ErrorContains(t, err, test.problem, "%+v", test)
		}
	}
	require.NoError(t, checkLayout(inspect.Kernel{End: 72 * mib}, 2900*mib, 4<<30), "an ELF kernel takes them anywhere")
	require.Error(t, checkLayout(inspect.Kernel{End: 72 * mib}, 3000*mib, 4<<30))
	require.NoError(t, checkLayout(inspect.Kernel{}, 1, 64*mib), "a kernel that does not say what it takes")
}
