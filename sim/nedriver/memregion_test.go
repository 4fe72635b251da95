package nedriver

import (
	"bytes"
	"io"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/pcidev"
)

// The cases are those of the driver's own test.
// Source: phys_regions_test_cases, drivers/virt/nitro_enclaves/ne_misc_dev_test.c.
func TestPhysicallyContiguousRegionsAreMerged(t *testing.T) {
	var regions []physRegion
	for _, c := range []struct {
		add  physRegion
		err  error
		num  int
		last physRegion
	}{
		{add: physRegion{0x1000, 0x200000}, err: unix.EINVAL},
		{add: physRegion{0x200000, 0x1000}, err: unix.EINVAL},
		{add: physRegion{0x200000, 0x200000}, num: 1, last: physRegion{0x200000, 0x200000}},
		{add: physRegion{0x0, 0x200000}, num: 2, last: physRegion{0x0, 0x200000}},
		{add: physRegion{0x600000, 0x400000}, num: 3, last: physRegion{0x600000, 0x400000}},
		{add: physRegion{0xa00000, 0x400000}, num: 3, last: physRegion{0x600000, 0x800000}},
		{add: physRegion{0x1000, 0x200000}, err: unix.EINVAL, num: 3, last: physRegion{0x600000, 0x800000}},
	} {
		var err error
		regions, err = mergePhysRegion(regions, c.add)
		require.ErrorIs(t, err, c.err)
		require.Len(t, regions, c.num)
		if c.num > 0 {
			require.Equal(t, c.last, regions[c.num-1])
		}
	}
}

// added returns what the device was given, without where the physical memory began.
func added(w *world) (regions []physRegion) {
	for _, req := range w.dev.asked() {
		if r, ok := req.(pcidev.SlotAddMemReq); ok {
			regions = append(regions, physRegion{r.PAddr, r.Size})
		}
	}
	return regions
}

func TestContiguousMemoryIsOneRegion(t *testing.T) {
	w := newWorld(t, HostConfig{}, "2-3")
	e := w.create()
	w.donate(e, w.mmap(MapSpec{Size: 64 << 20}))
	require.Equal(t, []physRegion{{physStart, 64 << 20}}, added(w))
	require.Equal(t, 1, w.dev.mappings())
}

func TestScatteredMemoryIsARegionForEachPiece(t *testing.T) {
	w := newWorld(t, HostConfig{}, "2-3")
	e := w.create()
	w.donate(e, w.mmap(MapSpec{Size: 10 << 20, ContiguousPages: 2}))
	require.Equal(t, []physRegion{{physStart, 4 << 20}, {physStart + 6<<20, 4 << 20}, {physStart + 12<<20, 2 << 20}}, added(w))
	require.Equal(t, 3, w.dev.mappings())
	require.NoError(t, e.Close())
	require.Zero(t, w.dev.mappings())
}

func TestRegionAcrossTwoMappingsIsOneRegion(t *testing.T) {
	w := newWorld(t, HostConfig{}, "2-3")
	e, a, b := w.create(), w.mmap(MapSpec{Size: 4 << 20}), w.mmap(MapSpec{Size: 6 << 20})
	require.Equal(t, a.Addr()+a.Size(), b.Addr())
	require.NoError(t, e.SetUserMemoryRegion(UserMemoryRegion{MemorySize: 10 << 20, UserspaceAddr: a.Addr()}))
	require.Equal(t, []physRegion{{physStart, 10 << 20}}, added(w))
	require.Equal(t, 2, w.dev.mappings())
}

func TestPartOfAGigabytePageIsGivenWhole(t *testing.T) {
	w := newWorld(t, HostConfig{}, "2-3")
	e, m := w.create(), w.mmap(MapSpec{Size: 1 << 30, PageSize: PageSize1G})
	require.NoError(t, e.SetUserMemoryRegion(UserMemoryRegion{MemorySize: 2 << 20, UserspaceAddr: m.Addr()}))
	require.Equal(t, []physRegion{{physStart, 1 << 30}}, added(w))
	w.addVCPUs(e, 2)
	_, err := e.StartEnclave(StartInfo{})
	require.NoError(t, err, "the page is memory enough")
}

func TestRegionsOfHugePagesBelow2MiBAreRefused(t *testing.T) {
	w := newWorld(t, HostConfig{}, "2-3")
	m := w.mmap(MapSpec{Size: 2 << 20, PageSize: PageSize64K})
	requireErrno(t, NEErrInvalidPageSize, w.create().SetUserMemoryRegion(UserMemoryRegion{MemorySize: 2 << 20, UserspaceAddr: m.Addr()}))
}

func TestRegionChecksComeInTheDriversOrder(t *testing.T) {
	w := newWorld(t, HostConfig{}, "2-3")
	e, m := w.create(), w.mmap(MapSpec{Size: 8 << 20})
	small := w.mmap(MapSpec{Size: 2 << 20, PageSize: PageSize4K, Node: 1})
	far := w.mmap(MapSpec{Size: 2 << 20, Node: 1})
	w.donate(e, m)
	w.dev.asked()
	for name, c := range map[string]struct {
		region UserMemoryRegion
		want   error
	}{
		"flags before all":             {UserMemoryRegion{1, 1, 1}, NEErrInvalidFlagValue},
		"size before alignment":        {UserMemoryRegion{0, 1, 1}, NEErrInvalidMemRegionSize},
		"alignment before range":       {UserMemoryRegion{0, 2 << 20, 1<<64 - 4096}, NEErrUnalignedMemRegionAddr},
		"end wraps around":             {UserMemoryRegion{0, 1<<64 - 2<<20, m.Addr()}, NEErrInvalidMemRegionAddr},
		"end above user space":         {UserMemoryRegion{0, 2 << 20, 1<<47 - 2<<20}, NEErrInvalidMemRegionAddr},
		"range before overlap":         {UserMemoryRegion{0, 1 << 50, m.Addr()}, NEErrInvalidMemRegionAddr},
		"overlap before size 0":        {UserMemoryRegion{0, 0, m.Addr()}, NEErrMemRegionAlreadyUsed},
		"around a region":              {UserMemoryRegion{0, 16 << 20, m.Addr() - 4<<20}, NEErrMemRegionAlreadyUsed},
		"size 0":                       {UserMemoryRegion{0, 0, small.Addr()}, unix.ENOMEM},
		"too many pages before any":    {UserMemoryRegion{0, 1 << 40, far.Addr()}, unix.ENOMEM},
		"nothing mapped":               {UserMemoryRegion{0, 2 << 20, 4 << 20}, unix.EFAULT},
		"runs past the mapping":        {UserMemoryRegion{0, 4 << 20, far.Addr() + 2<<20}, unix.EFAULT},
		"huge before node":             {UserMemoryRegion{0, 4 << 20, small.Addr()}, NEErrMemNotHugePage},
		"node of the first page comes": {UserMemoryRegion{0, 4 << 20, far.Addr()}, NEErrMemDifferentNUMANode},
	} {
		err := e.SetUserMemoryRegion(c.region)
		require.ErrorIs(t, err, c.want, name)
	}
	require.Empty(t, w.dev.asked(), "none of it reached the device")
	require.Equal(t, 1, w.dev.mappings())
	w.donate(e, w.mmap(MapSpec{Size: 2 << 20}))
}

func TestMemoryRegionsOfAllRegionsCount(t *testing.T) {
	w := newWorld(t, HostConfig{}, "2-3")
	w.dev.maxRegions = 3
	e := w.create()
	w.donate(e, w.mmap(MapSpec{Size: 4 << 20, ContiguousPages: 1}))
	m := w.mmap(MapSpec{Size: 4 << 20, ContiguousPages: 1})
	requireErrno(t, NEErrMemMaxRegions, e.SetUserMemoryRegion(UserMemoryRegion{MemorySize: 4 << 20, UserspaceAddr: m.Addr()}))
	require.NoError(t, e.SetUserMemoryRegion(UserMemoryRegion{MemorySize: 2 << 20, UserspaceAddr: m.Addr()}))
}

func TestMappingIsReadAndWritten(t *testing.T) {
	w := newWorld(t, HostConfig{}, "")
	m := w.mmap(MapSpec{Size: 3 << 20})
	require.EqualValues(t, 4<<20, m.Size(), "rounded up to pages")
	_, err := m.WriteAt([]byte("image"), EIFLoadOffset)
	require.ErrorIs(t, err, io.ErrShortWrite)
	_, err = m.WriteAt([]byte("image"), -1)
	require.Error(t, err)
	_, err = m.WriteAt([]byte("image"), 4<<20-5)
	require.NoError(t, err)
	got := make([]byte, 10)
	n, err := m.ReadAt(got, 4<<20-5)
	require.Equal(t, "image", string(got[:n]))
	require.ErrorIs(t, err, io.EOF)

	require.NoError(t, m.Close())
	require.ErrorIs(t, m.Close(), os.ErrClosed)
	_, err = m.ReadAt(got, 0)
	require.ErrorIs(t, err, os.ErrClosed)
	_, err = m.WriteAt(got, 0)
	require.ErrorIs(t, err, os.ErrClosed)
}

func TestMappingsThatCannotBe(t *testing.T) {
	w := newWorld(t, HostConfig{}, "")
	for _, c := range []struct {
		spec MapSpec
		want error
	}{
		{MapSpec{}, unix.EINVAL},
		{MapSpec{Size: 1, PageSize: 8192}, unix.EINVAL},
		{MapSpec{Size: 1, Node: 2}, unix.EINVAL},
		{MapSpec{Size: 1, Node: -1}, unix.EINVAL},
		{MapSpec{Size: 1 << 40, ContiguousPages: 1}, unix.EINVAL},
		{MapSpec{Size: 1<<64 - 1}, unix.ENOMEM},
		{MapSpec{Size: userEnd - userStart + 1}, unix.ENOMEM},
		{MapSpec{Size: 4 << 20, ContiguousPages: 1<<64 - 1}, nil},
	} {
		_, err := w.process.Mmap(c.spec)
		require.ErrorIs(t, err, c.want, "%+v", c.spec)
	}
}

func TestMappedMemoryIsSealed(t *testing.T) {
	w := newWorld(t, HostConfig{}, "")
	m := w.mmap(MapSpec{Size: 2 << 20})
	require.Error(t, m.mem.file.Truncate(0))
	require.Error(t, m.mem.file.Truncate(4<<20))
}

func TestHugePagesRunOut(t *testing.T) {
	w := newWorld(t, HostConfig{HugePages: []HugePages{{0, PageSize2M, 32}, {1, PageSize2M, 1}}}, "2-3")
	m := w.mmap(MapSpec{Size: 62 << 20})
	_, err := w.process.Mmap(MapSpec{Size: 4 << 20})
	requireErrno(t, unix.ENOMEM, err)
	require.Contains(t, err.Error(), "1 are free on NUMA node 0")
	_, err = w.process.Mmap(MapSpec{Size: 1 << 30, PageSize: PageSize1G})
	requireErrno(t, unix.ENOMEM, err)
	w.mmap(MapSpec{Size: 4 << 20, PageSize: PageSize4K})

	e := w.create()
	w.donate(e, m)
	require.NoError(t, m.Close())
	require.EqualValues(t, 1, w.host.FreeHugePages(0, PageSize2M), "the enclave still has them")
	require.NoError(t, e.Close())
	require.EqualValues(t, 32, w.host.FreeHugePages(0, PageSize2M))
}

func TestPoolsThatCannotBe(t *testing.T) {
	for _, pool := range []HugePages{{0, PageSize4K, 1}, {2, PageSize2M, 1}, {-1, PageSize2M, 1}} {
		_, err := NewHost(HostConfig{HugePages: []HugePages{pool}})
		require.Error(t, err, "%+v", pool)
	}
}

func TestFreedMemoryComesBackZeroed(t *testing.T) {
	w := newWorld(t, HostConfig{}, "2-3")
	e, m := w.create(), w.mmap(MapSpec{Size: 8 << 20, ContiguousPages: 1})
	rest := bytes.Repeat([]byte{7}, 8<<20)
	_, err := m.WriteAt(rest, 0)
	require.NoError(t, err)
	require.NoError(t, e.SetUserMemoryRegion(UserMemoryRegion{MemorySize: 4 << 20, UserspaceAddr: m.Addr() + 2<<20}))
	require.NoError(t, e.Close())
	got := make([]byte, 8<<20)
	_, err = m.ReadAt(got, 0)
	require.NoError(t, err)
	copy(rest[2<<20:6<<20], make([]byte, 4<<20))
	require.True(t, bytes.Equal(rest, got), "the pages that the enclave had are zero, the others are not")
}

func TestMemoryThatTheDeviceRefusedIsLeftAlone(t *testing.T) {
	w := newWorld(t, HostConfig{}, "2-3")
	e, m := w.create(), w.mmap(MapSpec{Size: 2 << 20})
	_, err := m.WriteAt([]byte("another enclave's"), 0)
	require.NoError(t, err)
	w.dev.set(func() { w.dev.refuse[pcidev.CmdSlotAddMem] = unix.EBUSY })
	region := UserMemoryRegion{MemorySize: m.Size(), UserspaceAddr: m.Addr()}
	requireErrno(t, unix.EBUSY, e.SetUserMemoryRegion(region))
	requireErrno(t, NEErrMemRegionAlreadyUsed, e.SetUserMemoryRegion(region))
	require.NoError(t, e.Close())
	got := make([]byte, 7)
	_, err = m.ReadAt(got, 0)
	require.NoError(t, err)
	require.Equal(t, "another", string(got))
}

func TestTwoEnclavesMayShareAMapping(t *testing.T) {
	w := newWorld(t, HostConfig{Topology: Topology{CPUs: 8}}, "2-5")
	a, b, m := w.create(), w.create(), w.mmap(MapSpec{Size: 8 << 20})
	require.NoError(t, a.SetUserMemoryRegion(UserMemoryRegion{MemorySize: 4 << 20, UserspaceAddr: m.Addr()}))
	require.NoError(t, b.SetUserMemoryRegion(UserMemoryRegion{MemorySize: 4 << 20, UserspaceAddr: m.Addr() + 4<<20}))
	require.Equal(t, 1, w.dev.mappings())
	require.NoError(t, a.Close())
	require.Equal(t, 1, w.dev.mappings())
	require.NoError(t, b.Close())
	require.Zero(t, w.dev.mappings())
}

func TestRegionThatTheDeviceCannotReachIsGivenUp(t *testing.T) {
	w := newWorld(t, HostConfig{HugePages: []HugePages{{0, PageSize2M, 4}}}, "2-3")
	w.dev.maxMaps = 3
	e, m := w.create(), w.mmap(MapSpec{Size: 8 << 20, ContiguousPages: 1})
	requireErrno(t, unix.ENOSPC, e.SetUserMemoryRegion(UserMemoryRegion{MemorySize: 8 << 20, UserspaceAddr: m.Addr()}))
	require.Zero(t, w.dev.mappings())
	require.Empty(t, added(w))
	require.NoError(t, e.SetUserMemoryRegion(UserMemoryRegion{MemorySize: 6 << 20, UserspaceAddr: m.Addr()}))
	require.NoError(t, e.Close())
	require.NoError(t, m.Close())
	require.EqualValues(t, 4, w.host.FreeHugePages(0, PageSize2M), "no page is lost")
}
