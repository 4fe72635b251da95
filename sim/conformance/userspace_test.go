package conformance

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/sim/nedriver"
)

// userSpace is a process with the driver in user space.
type userSpace struct {
	t        *testing.T
	host     *nedriver.Host
	driver   *nedriver.Driver
	process  *nedriver.Process
	file     *nedriver.File
	scratch  *nedriver.Mapping // for ioctls' structures
	enclaves map[int]*nedriver.Enclave
	mappings []*nedriver.Mapping
}

// newUserSpace has twice the CPUs of the primary VM, so that there are two NUMA nodes: the near one is the same.
func newUserSpace(t *testing.T, socket string) *userSpace {
	host, err := nedriver.NewHost(nedriver.HostConfig{Topology: nedriver.Topology{CPUs: 12, ThreadsPerCore: 2, NUMANodes: 2}})
	require.NoError(t, err)
	driver, err := nedriver.Load(t.Context(), host, socket)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, driver.Close()) })
	w := &userSpace{t: t, host: host, driver: driver, process: host.NewProcess(), enclaves: map[int]*nedriver.Enclave{}}
	t.Cleanup(func() { require.NoError(t, w.process.Exit()) })
	w.file = driver.Open(w.process)
	require.NoError(t, driver.SetCPUs(pool))
	w.scratch = newScratch(t, w.process)
	return w
}

func newScratch(t *testing.T, p *nedriver.Process) *nedriver.Mapping {
	m, err := p.Mmap(nedriver.MapSpec{Size: 4096, PageSize: nedriver.PageSize4K})
	require.NoError(t, err)
	return m
}

func (w *userSpace) SetCPUs(list string) int { return nedriver.Code(w.driver.SetCPUs(list)) }

func (w *userSpace) CreateVM() (int, int) { return w.createAt(w.scratch.Addr()) }

func (w *userSpace) createAt(addr uint64) (fd, code int) {
	e, err := w.file.Ioctl(nedriver.NECreateVM, addr)
	if err != nil {
		return Device, nedriver.Code(err)
	}
	fd = 100 + len(w.enclaves)
	for w.enclaves[fd] != nil {
		fd++
	}
	w.enclaves[fd] = e
	return fd, 0
}

func (w *userSpace) Ioctl(fd int, cmd uint32, arg []byte) int {
	_, err := w.scratch.WriteAt(arg, 0)
	require.NoError(w.t, err)
	code := w.IoctlAt(fd, cmd, w.scratch.Addr())
	_, err = w.scratch.ReadAt(arg, 0)
	require.NoError(w.t, err)
	return code
}

func (w *userSpace) IoctlAt(fd int, cmd uint32, addr uint64) int {
	if fd != Device {
		return nedriver.Code(w.enclaves[fd].Ioctl(cmd, addr))
	}
	if cmd == nedriver.NECreateVM {
		_, code := w.createAt(addr)
		return code
	}
	_, err := w.file.Ioctl(cmd, addr)
	return nedriver.Code(err)
}

func (w *userSpace) IoctlElsewhere(fd int, cmd uint32, arg []byte) int {
	other := w.host.NewProcess()
	defer other.Exit()
	e, err := w.enclaves[fd].Dup(other)
	require.NoError(w.t, err)
	scratch := newScratch(w.t, other)
	_, err = scratch.WriteAt(arg, 0)
	require.NoError(w.t, err)
	return nedriver.Code(e.Ioctl(cmd, scratch.Addr()))
}

func (w *userSpace) Map(kind Memory, size uint64) uint64 {
	spec := map[Memory]nedriver.MapSpec{
		Ordinary:  {PageSize: nedriver.PageSize4K},
		Huge2M:    {PageSize: nedriver.PageSize2M},
		Huge1G:    {PageSize: nedriver.PageSize1G},
		FarHuge2M: {PageSize: nedriver.PageSize2M, Node: 1},
		Scattered: {PageSize: nedriver.PageSize2M, ContiguousPages: 1},
	}[kind]
	spec.Size = size
	m, err := w.process.Mmap(spec)
	require.NoError(w.t, err)
	w.mappings = append(w.mappings, m)
	return m.Addr()
}

func (w *userSpace) Write(addr uint64, data []byte) {
	for _, m := range w.mappings {
		if addr >= m.Addr() && addr < m.Addr()+m.Size() {
			_, err := m.WriteAt(data, int64(addr-m.Addr()))
			require.NoError(w.t, err)
			return
		}
	}
	require.FailNow(w.t, "nothing is mapped there")
}

func (w *userSpace) Unmap() {
	for _, m := range w.mappings {
		require.NoError(w.t, m.Close())
	}
	w.mappings = nil
}

func (w *userSpace) Close(fd int) {
	require.NoError(w.t, w.enclaves[fd].Close())
	delete(w.enclaves, fd)
}
