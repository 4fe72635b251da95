package nedriver

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// everyError has a way to provoke each NE_ERR_* code of the UAPI header, in its order. The world has the pool
// "2,3" on NUMA node 0 of two.
var everyError = []struct {
	code    int
	name    string
	provoke func(w *world) error
}{
	{256, "NE_ERR_VCPU_ALREADY_USED", func(w *world) error {
		e := w.create()
		_, err := e.AddVCPU(2)
		require.NoError(w, err)
		_, err = e.AddVCPU(2)
		return err
	}},
	{257, "NE_ERR_VCPU_NOT_IN_CPU_POOL", func(w *world) error {
		_, err := w.create().AddVCPU(1)
		return err
	}},
	{258, "NE_ERR_VCPU_INVALID_CPU_CORE", func(w *world) error {
		e := w.create()
		e.cpus.threads, e.cpus.threadsPerCore = e.cpus.threads[:1], 8 // the topology changed behind the enclave's back
		_, err := e.AddVCPU(2)
		return err
	}},
	{259, "NE_ERR_INVALID_MEM_REGION_SIZE", func(w *world) error {
		m := w.mmap(MapSpec{Size: 64 << 20})
		return w.create().SetUserMemoryRegion(UserMemoryRegion{MemorySize: 1 << 20, UserspaceAddr: m.Addr()})
	}},
	{260, "NE_ERR_INVALID_MEM_REGION_ADDR", func(w *world) error {
		return w.create().SetUserMemoryRegion(UserMemoryRegion{MemorySize: 2 << 20, UserspaceAddr: 0xffff_8000_0000_0000})
	}},
	{261, "NE_ERR_UNALIGNED_MEM_REGION_ADDR", func(w *world) error {
		m := w.mmap(MapSpec{Size: 64 << 20})
		return w.create().SetUserMemoryRegion(UserMemoryRegion{MemorySize: 2 << 20, UserspaceAddr: m.Addr() + 4096})
	}},
	{262, "NE_ERR_MEM_REGION_ALREADY_USED", func(w *world) error {
		e, m := w.create(), w.mmap(MapSpec{Size: 64 << 20})
		w.donate(e, m)
		return e.SetUserMemoryRegion(UserMemoryRegion{MemorySize: 2 << 20, UserspaceAddr: m.Addr() + 62<<20})
	}},
	{263, "NE_ERR_MEM_NOT_HUGE_PAGE", func(w *world) error {
		m := w.mmap(MapSpec{Size: 64 << 20, PageSize: PageSize4K})
		return w.create().SetUserMemoryRegion(UserMemoryRegion{MemorySize: m.Size(), UserspaceAddr: m.Addr()})
	}},
	{264, "NE_ERR_MEM_DIFFERENT_NUMA_NODE", func(w *world) error {
		m := w.mmap(MapSpec{Size: 64 << 20, Node: 1})
		return w.create().SetUserMemoryRegion(UserMemoryRegion{MemorySize: m.Size(), UserspaceAddr: m.Addr()})
	}},
	{265, "NE_ERR_MEM_MAX_REGIONS", func(w *world) error {
		m := w.mmap(MapSpec{Size: 65 * 2 << 20, ContiguousPages: 1})
		return w.create().SetUserMemoryRegion(UserMemoryRegion{MemorySize: m.Size(), UserspaceAddr: m.Addr()})
	}},
	{266, "NE_ERR_NO_MEM_REGIONS_ADDED", func(w *world) error {
		_, err := w.create().StartEnclave(StartInfo{})
		return err
	}},
	{267, "NE_ERR_NO_VCPUS_ADDED", func(w *world) error {
		e := w.create()
		w.donate(e, w.mmap(MapSpec{Size: 64 << 20}))
		_, err := e.StartEnclave(StartInfo{})
		return err
	}},
	{268, "NE_ERR_ENCLAVE_MEM_MIN_SIZE", func(w *world) error {
		e := w.create()
		w.donate(e, w.mmap(MapSpec{Size: 62 << 20}))
		_, err := e.StartEnclave(StartInfo{})
		return err
	}},
	{269, "NE_ERR_FULL_CORES_NOT_USED", func(w *world) error {
		e := w.create()
		w.donate(e, w.mmap(MapSpec{Size: 64 << 20}))
		w.addVCPUs(e, 1)
		_, err := e.StartEnclave(StartInfo{})
		return err
	}},
	{270, "NE_ERR_NOT_IN_INIT_STATE", func(w *world) error {
		e, _ := w.running()
		_, err := e.StartEnclave(StartInfo{})
		return err
	}},
	{271, "NE_ERR_INVALID_VCPU", func(w *world) error {
		_, err := w.create().AddVCPU(8)
		return err
	}},
	{272, "NE_ERR_NO_CPUS_AVAIL_IN_POOL", func(w *world) error {
		w.addVCPUs(w.create(), 1)
		_, err := w.file.CreateVM()
		return err
	}},
	{273, "NE_ERR_INVALID_PAGE_SIZE", func(w *world) error {
		m := w.mmap(MapSpec{Size: 1 << 30, PageSize: PageSize1G})
		return w.create().SetUserMemoryRegion(UserMemoryRegion{MemorySize: 2 << 20, UserspaceAddr: m.Addr() + 2<<20})
	}},
	{274, "NE_ERR_INVALID_FLAG_VALUE", func(w *world) error {
		_, err := w.create().GetImageLoadInfo(2)
		return err
	}},
	{275, "NE_ERR_INVALID_ENCLAVE_CID", func(w *world) error {
		_, err := w.create().StartEnclave(StartInfo{EnclaveCID: 3})
		return err
	}},
}

func TestEveryErrorOfTheHeaderCanBeProvoked(t *testing.T) {
	require.Len(t, everyError, len(errnoTexts))
	for _, c := range everyError {
		t.Run(c.name, func(t *testing.T) {
			err := c.provoke(newWorld(t, HostConfig{}, "2,3"))
			require.Equal(t, c.code, Code(err), "%v", err)
			require.Equal(t, c.name, Errno(c.code).Name())
			require.Contains(t, err.Error(), c.name)
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

func TestCodeIsWhatErrnoWouldSay(t *testing.T) {
	require.Equal(t, 0, Code(nil))
	require.Equal(t, 271, Code(fmt.Errorf("add: %w", NEErrInvalidVCPU)))
	require.Equal(t, int(unix.ENOMEM), Code(join(nil, unix.ENOMEM, os.ErrClosed)))
	require.Equal(t, int(unix.ENODEV), Code(ErrDeviceGone))
	require.Equal(t, int(unix.EIO), Code(errors.New("strange")))
}

func TestErrorTextsAreForPeople(t *testing.T) {
	for errno := range errnoTexts {
		require.True(t, strings.HasSuffix(errno.Error(), "("+errno.Name()+")"), errno.Error())
	}
	require.Equal(t, "unknown Nitro Enclaves error 999", Errno(999).Error())
	require.Equal(t, "NE_ERR_999", Errno(999).Name())
}
