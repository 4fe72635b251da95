package nedriver

import (
	"fmt"
	"os"
	"sync"

	"github.com/dustin/go-humanize/english"
	"golang.org/x/sys/unix"
)

// Page sizes in bytes that a mapping may have: ordinary pages, arm64's contiguous ones, and huge pages of x86.
const (
	PageSize4K  = 4 << 10
	PageSize64K = 64 << 10
	PageSize2M  = 2 << 20
	PageSize1G  = 1 << 30
)

// Physical memory: where it begins, and the end that 52 address bits set.
const (
	physStart = 4 << 30
	physEnd   = 1 << 52
)

// HugePages is a pool of huge pages set aside on a NUMA node, as by nr_hugepages.
type HugePages struct {
	Node     int
	PageSize uint64 // bytes
	Pages    uint64
}

// HostConfig describes the simulated parent instance.
type HostConfig struct {
	Topology  Topology
	HugePages []HugePages // nil: as many of each size as are asked for
}

// Host is the parent instance that drivers and processes live on: its CPUs and its physical memory.
type Host struct {
	topology Topology

	mu       sync.Mutex
	offline  map[int]bool // CPUs taken from the parent: by the administrator, or for an enclave CPU pool
	limited  bool
	free     map[hugePool]uint64 // pages left by pool, when limited
	nextPhys uint64              // physical addresses are given once and never again
	inUse    uint64              // bytes of memory that are mapped or an enclave's
}

type hugePool struct {
	node     int
	pageSize uint64
}

// NewHost makes a parent instance.
func NewHost(config HostConfig) (*Host, error) {
	topology := config.Topology.withDefaults()
	if err := topology.check(); err != nil {
		return nil, err
	}
	h := &Host{
		topology: topology,
		offline:  make(map[int]bool),
		limited:  config.HugePages != nil,
		free:     make(map[hugePool]uint64),
		nextPhys: physStart,
	}
	for _, cpu := range topology.Offline {
		h.offline[cpu] = true
	}
	for _, pool := range config.HugePages {
		if !isHugePage(pool.PageSize) || pool.Node < 0 || pool.Node >= topology.NUMANodes {
			return nil, fmt.Errorf("no pool of %d-byte huge pages can be on NUMA node %d", pool.PageSize, pool.Node)
		}
		h.free[hugePool{pool.Node, pool.PageSize}] += pool.Pages
	}
	return h, nil
}

// OnlineCPUs returns the CPUs that the parent itself may use, in ascending order.
func (h *Host) OnlineCPUs() []int {
	h.mu.Lock()
	defer h.mu.Unlock()
	var cpus []int
	for cpu := range h.topology.CPUs {
		if !h.offline[cpu] {
			cpus = append(cpus, cpu)
		}
	}
	return cpus
}

// FreeHugePages returns how many huge pages of a size are left on a node: none where HostConfig names no pool.
func (h *Host) FreeHugePages(node int, pageSize uint64) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.free[hugePool{node, pageSize}]
}

// MemoryInUse returns how much memory processes have mapped and enclaves hold, in bytes.
func (h *Host) MemoryInUse() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.inUse
}

// NewProcess starts a process with nothing mapped and no file open.
func (h *Host) NewProcess() *Process {
	return &Process{host: h, next: userStart}
}

func isHugePage(size uint64) bool {
	return size == PageSize64K || size == PageSize2M || size == PageSize1G
}

// extent is a run of physical memory that lies in one piece in a memory's file.
type extent struct {
	phys, off, size uint64
}

// memory is physical memory behind a mapping: a sealed memfd and the physical addresses of its parts. It lives as
// long as its mapping or an enclave that has pages of it.
type memory struct {
	host     *Host
	file     *os.File
	size     uint64
	pageSize uint64
	node     int
	extents  []extent

	refs int // guarded by host.mu
}

// alloc takes physical memory, all addresses contiguous, or with a hole after every contiguous pages.
func (h *Host) alloc(spec MapSpec) (*memory, error) {
	m := &memory{host: h, size: spec.Size, pageSize: spec.PageSize, node: spec.Node, refs: 1}
	if err := h.reserve(m, spec.ContiguousPages*spec.PageSize); err != nil {
		return nil, err
	}
	file, err := newMemfd(m.size)
	if err != nil {
		m.put()
		return nil, err
	}
	m.file = file
	return m, nil
}

// reserve takes pages from their pool and gives them physical addresses; run is the length of a contiguous run
// in bytes, 0 for one run.
func (h *Host) reserve(m *memory, run uint64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if run == 0 || run > m.size {
		run = m.size
	}
	align := max(m.pageSize, minMemRegionSize)
	phys := (h.nextPhys + align - 1) / align * align
	if m.size/run*(run+m.pageSize)+run > physEnd-phys {
		return fmt.Errorf("no physical memory left for %d bytes: %w", m.size, unix.ENOMEM)
	}
	if h.limited && isHugePage(m.pageSize) {
		pool, want := hugePool{m.node, m.pageSize}, m.size/m.pageSize
		if h.free[pool] < want {
			return fmt.Errorf("%s of %d KiB needed, and %d are free on NUMA node %d: make the pool larger: %w",
				english.Plural(int(want), "huge page", ""), m.pageSize>>10, h.free[pool], m.node, unix.ENOMEM)
		}
		h.free[pool] -= want
	}
	for off := uint64(0); off < m.size; off += run {
		m.extents = append(m.extents, extent{phys: phys, off: off, size: min(run, m.size-off)})
		phys += run + m.pageSize
	}
	h.nextPhys = phys - m.pageSize
	h.inUse += m.size
	return nil
}

// newMemfd makes shared memory that nobody can shrink or grow, so that who maps it never meets SIGBUS.
func newMemfd(size uint64) (*os.File, error) {
	fd, err := unix.MemfdCreate("nesim-parent-memory", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("memfd for the parent's memory: %w", err)
	}
	file := os.NewFile(uintptr(fd), "nesim-parent-memory")
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		file.Close()
		return nil, fmt.Errorf("memfd of %d bytes for the parent's memory: %w", size, err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		file.Close()
		return nil, fmt.Errorf("seal the parent's memory: %w", err)
	}
	return file, nil
}

// get takes one more reference. The caller holds one, or keeps the owner from dropping its own.
func (m *memory) get() {
	m.host.mu.Lock()
	defer m.host.mu.Unlock()
	m.refs++
}

// put drops a reference; the last one gives the pages back.
func (m *memory) put() {
	m.host.mu.Lock()
	defer m.host.mu.Unlock()
	if m.refs--; m.refs > 0 {
		return
	}
	m.host.inUse -= m.size
	if m.host.limited && isHugePage(m.pageSize) {
		m.host.free[hugePool{m.node, m.pageSize}] += m.size / m.pageSize
	}
	if m.file != nil {
		m.file.Close()
	}
}

// extentAt returns the extent with the byte at off. Extents have one size, save the last.
func (m *memory) extentAt(off uint64) extent {
	return m.extents[off/m.extents[0].size]
}

// zero makes size bytes at off zero, and gives their storage back.
func (m *memory) zero(off, size uint64) error {
	conn, err := m.file.SyscallConn()
	if err != nil {
		return err
	}
	punch := func(fd uintptr) {
		err = unix.Fallocate(int(fd), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(off), int64(size))
	}
	if ctlErr := conn.Control(punch); ctlErr != nil {
		return ctlErr
	}
	return err
}
