package nedriver

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// ioc builds an ioctl number as _IOC of asm-generic/ioctl.h does, type 0xAE.
func ioc(dir, nr, size uint32) uint32 { return dir<<30 | size<<16 | 0xAE<<8 | nr }

func TestIoctlNumbers(t *testing.T) {
	const write, read = 1, 2
	require.EqualValues(t, ioc(read, 0x20, 8), NECreateVM)
	require.EqualValues(t, ioc(read|write, 0x21, 4), NEAddVCPU)
	require.EqualValues(t, ioc(read|write, 0x22, 16), NEGetImageLoadInfo)
	require.EqualValues(t, ioc(write, 0x23, 24), NESetUserMemoryRegion)
	require.EqualValues(t, ioc(read|write, 0x24, 16), NEStartEnclave)
}

// user is a page of a process to pass structures in.
type user struct{ *Mapping }

func (u user) put(words ...uint64) uint64 {
	var b []byte
	for _, word := range words {
		b = binary.LittleEndian.AppendUint64(b, word)
	}
	u.WriteAt(b, 0)
	return u.Addr()
}

func (u user) word(i int64) uint64 {
	b := make([]byte, 8)
	u.ReadAt(b, 8*i)
	return binary.LittleEndian.Uint64(b)
}

func TestEnclaveThroughIoctlsAlone(t *testing.T) {
	w := newWorld(t, HostConfig{}, "2-3")
	u, m := user{w.mmap(MapSpec{Size: 4096, PageSize: PageSize4K})}, w.mmap(MapSpec{Size: 64 << 20})

	e, err := w.file.Ioctl(NECreateVM, u.put(0))
	require.NoError(t, err)
	require.Equal(t, e.SlotUID(), u.word(0))
	require.NoError(t, e.Ioctl(NEGetImageLoadInfo, u.put(NEEIFImage, 0)))
	require.EqualValues(t, EIFLoadOffset, u.word(1))
	require.NoError(t, e.Ioctl(NESetUserMemoryRegion, u.put(NEDefaultMemoryRegion, m.Size(), m.Addr())))
	require.NoError(t, e.Ioctl(NEAddVCPU, u.put(0)))
	require.EqualValues(t, 2, u.word(0))
	require.NoError(t, e.Ioctl(NEAddVCPU, u.put(3)))
	require.NoError(t, e.Ioctl(NEStartEnclave, u.put(NEEnclaveDebugMode, 0)))
	require.EqualValues(t, 16, u.word(1))
	requireErrno(t, NEErrNotInInitState, e.Ioctl(NEStartEnclave, u.put(0, 0)))
}

func TestIoctlsThatAreNone(t *testing.T) {
	w := newWorld(t, HostConfig{}, "2-3")
	e := w.create()
	_, err := w.file.Ioctl(NEAddVCPU, 0)
	requireErrno(t, unix.ENOTTY, err)
	_, err = w.file.Ioctl(0x5401, 0)
	requireErrno(t, unix.ENOTTY, err)
	requireErrno(t, unix.ENOTTY, e.Ioctl(NECreateVM, 0))
	requireErrno(t, unix.ENOTTY, e.Ioctl(ioc(3, 0x21, 8), 0))
}

func TestIoctlsOnMemoryThatIsNotThere(t *testing.T) {
	w := newWorld(t, HostConfig{}, "2-3")
	_, err := w.file.Ioctl(NECreateVM, 0)
	requireErrno(t, unix.EFAULT, err)
	require.Empty(t, w.dev.states, "the slot is freed again")

	e := w.create()
	for _, cmd := range []uint32{NEAddVCPU, NEGetImageLoadInfo, NESetUserMemoryRegion, NEStartEnclave} {
		requireErrno(t, unix.EFAULT, e.Ioctl(cmd, 8))
	}
	m := w.mmap(MapSpec{Size: 4096, PageSize: PageSize4K})
	requireErrno(t, unix.EFAULT, e.Ioctl(NEGetImageLoadInfo, m.Addr()+4096-8))
	next := w.mmap(MapSpec{Size: 4096, PageSize: PageSize4K})
	require.NotEqual(t, m.Addr()+4096, next.Addr())
	requireErrno(t, unix.EFAULT, e.Ioctl(NEGetImageLoadInfo, 1<<64-8))
}
