package nedriver

import (
	"fmt"
	"slices"
	"sync"

	"github.com/dustin/go-humanize/english"
	"golang.org/x/sys/unix"
)

// neCPUsSize is the longest CPU list the ne_cpus parameter holds, with its closing zero byte.
// Source: NE_CPUS_SIZE, drivers/virt/nitro_enclaves/ne_misc_dev.c.
const neCPUsSize = 512

// maxCPUs bounds a topology: NR_CPUS of distribution kernels.
const maxCPUs = 8192

// Topology is the CPU topology of the simulated parent.
type Topology struct {
	CPUs           int // CPUs in all; 0 = 4
	ThreadsPerCore int // threads (CPUs) of one core; 0 = 2
	NUMANodes      int // nodes, each with as many cores; 0 = 1
	// Interleaved numbers a core's threads as EC2's x86 instances do: with C cores, the siblings of CPU i are
	// i+C, i+2C and so on. Without it a core's threads have successive numbers, as in QEMU.
	Interleaved bool
	Offline     []int // CPUs that the administrator has taken offline
}

func (t Topology) withDefaults() Topology {
	if t.CPUs == 0 {
		t.CPUs = 4
	}
	if t.ThreadsPerCore == 0 {
		t.ThreadsPerCore = 2
	}
	if t.NUMANodes == 0 {
		t.NUMANodes = 1
	}
	return t
}

func (t Topology) check() error {
	switch {
	case t.CPUs < 1 || t.CPUs > maxCPUs:
		return fmt.Errorf("CPU topology: %d CPUs, want 1 to %d", t.CPUs, maxCPUs)
	case t.ThreadsPerCore < 1 || t.CPUs%t.ThreadsPerCore != 0:
		return fmt.Errorf("CPU topology: %s cannot form whole cores of %s", english.Plural(t.CPUs, "CPU", ""), english.Plural(t.ThreadsPerCore, "thread", ""))
	case t.NUMANodes < 1 || t.cores()%t.NUMANodes != 0:
		return fmt.Errorf("CPU topology: %s cannot be divided among %s", english.Plural(t.cores(), "core", ""), english.Plural(t.NUMANodes, "NUMA node", ""))
	}
	for _, cpu := range t.Offline {
		if cpu < 0 || cpu >= t.CPUs {
			return fmt.Errorf("CPU topology: offline CPU %d does not exist", cpu)
		}
	}
	return nil
}

func (t Topology) cores() int { return t.CPUs / t.ThreadsPerCore }

func (t Topology) core(cpu int) int {
	if t.Interleaved {
		return cpu % t.cores()
	}
	return cpu / t.ThreadsPerCore
}

func (t Topology) node(cpu int) int { return t.core(cpu) * t.NUMANodes / t.cores() }

// siblings returns all threads of cpu's core, cpu among them, in ascending order.
func (t Topology) siblings(cpu int) []int {
	threads := make([]int, t.ThreadsPerCore)
	for i := range threads {
		if t.Interleaved {
			threads[i] = t.core(cpu) + i*t.cores()
		} else {
			threads[i] = t.core(cpu)*t.ThreadsPerCore + i
		}
	}
	return threads
}

// cpuPool holds the cores that the parent has set aside for enclaves.
type cpuPool struct {
	host     *Host
	topology Topology

	mu             sync.Mutex // held before Host.mu
	avail          [][]int    // by core id: the core's threads while no enclave has them; empty list = pool not set
	threadsPerCore int
	node           int
	list           string // the parameter as set
	cpus           []int  // those in it, in order
}

func newCPUPool(h *Host) *cpuPool {
	return &cpuPool{host: h, topology: h.topology, node: -1}
}

// set replaces the pool and takes its CPUs from the parent. After an error there is no pool. The caller makes
// sure that no enclave has a core.
func (pool *cpuPool) set(list string) error {
	pool.mu.Lock()
	defer pool.mu.Unlock()
	pool.host.mu.Lock()
	defer pool.host.mu.Unlock()
	pool.clearLocked()
	cpus, err := pool.check(list)
	if err != nil {
		return err
	}
	if len(list) >= neCPUsSize {
		return fmt.Errorf("CPU list of %d characters, want at most %d: %w", len(list), neCPUsSize-1, unix.ENOSPC)
	}
	pool.avail = make([][]int, pool.topology.cores())
	for _, cpu := range cpus {
		core := pool.topology.core(cpu)
		pool.avail[core] = append(pool.avail[core], cpu)
		pool.host.offline[cpu] = true
	}
	pool.threadsPerCore = pool.topology.ThreadsPerCore
	pool.node = pool.topology.node(cpus[0])
	pool.list, pool.cpus = list, cpus
	return nil
}

// clear gives the pool's CPUs back to the parent.
func (pool *cpuPool) clear() {
	pool.mu.Lock()
	defer pool.mu.Unlock()
	pool.host.mu.Lock()
	defer pool.host.mu.Unlock()
	pool.clearLocked()
}

// clearLocked is clear with both locks held.
func (pool *cpuPool) clearLocked() {
	for _, threads := range pool.avail {
		for _, cpu := range threads {
			delete(pool.host.offline, cpu)
		}
	}
	pool.avail, pool.threadsPerCore, pool.node, pool.list, pool.cpus = nil, 0, -1, "", nil
}

// current is the pool as the list that it was set from, and as the CPUs in order.
func (pool *cpuPool) current() (list string, cpus []int) {
	pool.mu.Lock()
	defer pool.mu.Unlock()
	return pool.list, pool.cpus
}

// check reads the list and applies the driver's rules in the driver's order: CPUs there and online, of one NUMA
// node, not CPU 0 nor its siblings, full cores only. The caller
// holds both locks.
func (pool *cpuPool) check(list string) ([]int, error) {
	set, err := parseCPUList(list, pool.topology.CPUs)
	if err != nil {
		return nil, err
	}
	var cpus []int
	for cpu, in := range set {
		if in {
			cpus = append(cpus, cpu)
		}
	}
	refuse := func(format string, args ...any) ([]int, error) {
		return nil, fmt.Errorf("enclave CPU pool %q: %s: %w", list, fmt.Sprintf(format, args...), unix.EINVAL)
	}
	if len(cpus) == 0 {
		return refuse("no CPU in it")
	}
	for _, cpu := range cpus {
		if pool.host.offline[cpu] {
			return refuse("CPU %d is offline; bring it online first", cpu)
		}
	}
	for _, cpu := range cpus {
		if pool.topology.node(cpu) != pool.topology.node(cpus[0]) {
			return refuse("CPUs %d and %d are of different NUMA nodes", cpus[0], cpu)
		}
	}
	for _, cpu := range pool.topology.siblings(0) {
		if set[cpu] {
			return refuse("CPU %d is of CPU 0's core, which stays with the parent", cpu)
		}
	}
	for _, cpu := range cpus {
		for _, sibling := range pool.topology.siblings(cpu) {
			if !set[sibling] {
				return refuse("CPU %d is missing; CPU %d is of the same core, and a pool has full cores only", sibling, cpu)
			}
		}
	}
	return cpus, nil
}

// enclaveCPUs is what one enclave has of the pool. It is guarded by its enclave's infoMu.
type enclaveCPUs struct {
	pool           *cpuPool
	threads        [][]int // by core id: all threads of the cores this enclave has
	threadsPerCore int
	node           int
	vcpus          map[uint32]bool // the threads it has added
}

// newEnclaveCPUs returns an enclave's empty share, or NEErrNoCPUsAvailInPool when no core is free.
func (pool *cpuPool) newEnclaveCPUs() (*enclaveCPUs, error) {
	pool.mu.Lock()
	defer pool.mu.Unlock()
	if !slices.ContainsFunc(pool.avail, func(threads []int) bool { return len(threads) > 0 }) {
		return nil, NEErrNoCPUsAvailInPool
	}
	return &enclaveCPUs{
		pool:           pool,
		threads:        make([][]int, len(pool.avail)),
		threadsPerCore: pool.threadsPerCore,
		node:           pool.node,
		vcpus:          make(map[uint32]bool),
	}, nil
}

// take finds the CPU for a new vCPU and takes its whole core out of the pool; vcpuID 0 lets it choose: a thread
// left over from the enclave's cores first, then the first free core's first. It does not add the vCPU.
func (c *enclaveCPUs) take(vcpuID uint32) (uint32, error) {
	if uint64(vcpuID) >= uint64(len(c.threads)*c.threadsPerCore) {
		return 0, NEErrInvalidVCPU
	}
	if vcpuID == 0 {
		return c.choose()
	}
	if c.vcpus[vcpuID] {
		return 0, NEErrVCPUAlreadyUsed
	}
	has := func(threads []int) bool { return slices.Contains(threads, int(vcpuID)) }
	if slices.ContainsFunc(c.threads, has) {
		return vcpuID, nil
	}
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	core := slices.IndexFunc(c.pool.avail, has)
	if core < 0 {
		return 0, NEErrVCPUNotInCPUPool
	}
	return vcpuID, c.takeCore(core)
}

func (c *enclaveCPUs) choose() (uint32, error) {
	if cpu, ok := c.unused(); ok {
		return cpu, nil
	}
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	core := slices.IndexFunc(c.pool.avail, func(threads []int) bool { return len(threads) > 0 })
	if core < 0 {
		return 0, NEErrNoCPUsAvailInPool
	}
	if err := c.takeCore(core); err != nil {
		return 0, err
	}
	return uint32(c.threads[core][0]), nil
}

// takeCore moves a core from the pool to the enclave. The caller holds the pool's mu.
func (c *enclaveCPUs) takeCore(core int) error {
	if core >= len(c.threads) {
		return NEErrVCPUInvalidCPUCore
	}
	c.threads[core], c.pool.avail[core] = c.pool.avail[core], nil
	return nil
}

// unused returns the first thread of the enclave's cores that is not a vCPU of it.
func (c *enclaveCPUs) unused() (uint32, bool) {
	for _, threads := range c.threads {
		for _, cpu := range threads {
			if !c.vcpus[uint32(cpu)] {
				return uint32(cpu), true
			}
		}
	}
	return 0, false
}

// release gives the enclave's cores back to the pool.
func (c *enclaveCPUs) release() {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	for core, threads := range c.threads {
		if len(threads) > 0 {
			c.pool.avail[core] = threads
		}
	}
	c.threads = nil
}
