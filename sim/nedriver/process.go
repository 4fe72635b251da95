package nedriver

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// User addresses: where mappings begin, and the end of user space with four-level page tables.
// Source of the end: TASK_SIZE_MAX, arch/x86/include/asm/page_64.h.
const (
	userStart = 1 << 44
	userEnd   = 1<<47 - 4096
)

// maxExtents bounds how scattered a mapping may be.
const maxExtents = 1 << 16

// Process is a process of the parent instance: its address space and its open enclaves.
type Process struct {
	host *Host

	mu       sync.Mutex
	next     uint64 // the next mapping's address
	mappings []*Mapping
	files    []*Enclave // in the order of their opening
	exited   bool
}

// MapSpec says what to map.
type MapSpec struct {
	Size     uint64 // bytes; rounded up to whole pages
	PageSize uint64 // bytes: PageSize4K (ordinary memory), PageSize64K, PageSize2M, PageSize1G; 0 = PageSize2M
	Node     int    // NUMA node of the memory
	// ContiguousPages is the number of pages that are physically contiguous before a hole comes; 0 = all of them.
	ContiguousPages uint64
}

// Mapping is memory mapped into a process. It is read and written like a file of its size; what is written is
// there for the device once the memory is an enclave's.
type Mapping struct {
	process *Process
	mem     *memory
	addr    uint64

	mu     sync.RWMutex // held shared while the memory is used, so that Close waits
	closed bool
}

// Mmap maps new zeroed memory, directly behind the process's last mapping as far as alignment allows. EINVAL for
// a size, page size or node that cannot be, ENOMEM when pages or addresses run out.
func (p *Process) Mmap(spec MapSpec) (*Mapping, error) {
	if spec.PageSize == 0 {
		spec.PageSize = PageSize2M
	}
	if err := p.checkSpec(&spec); err != nil {
		return nil, fmt.Errorf("map %d bytes of memory: %w", spec.Size, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.exited {
		return nil, fmt.Errorf("map memory: the process has ended: %w", unix.ESRCH)
	}
	align := max(spec.PageSize, minMemRegionSize)
	addr := (p.next + align - 1) / align * align
	if addr > userEnd || spec.Size > userEnd-addr {
		return nil, fmt.Errorf("map %d bytes of memory: no address room: %w", spec.Size, unix.ENOMEM)
	}
	mem, err := p.host.alloc(spec)
	if err != nil {
		return nil, err
	}
	m := &Mapping{process: p, mem: mem, addr: addr}
	p.mappings = append(p.mappings, m)
	p.next = addr + spec.Size
	return m, nil
}

// checkSpec checks what is asked for and rounds the size up to pages.
func (p *Process) checkSpec(spec *MapSpec) error {
	switch {
	case spec.PageSize != PageSize4K && !isHugePage(spec.PageSize):
		return fmt.Errorf("no pages of %d bytes: %w", spec.PageSize, unix.EINVAL)
	case spec.Node < 0 || spec.Node >= p.host.topology.NUMANodes:
		return fmt.Errorf("no NUMA node %d: %w", spec.Node, unix.EINVAL)
	case spec.Size == 0:
		return unix.EINVAL
	case spec.Size > userEnd:
		return unix.ENOMEM
	}
	spec.Size = (spec.Size + spec.PageSize - 1) / spec.PageSize * spec.PageSize
	pages := spec.Size / spec.PageSize
	if spec.ContiguousPages > 0 && pages/spec.ContiguousPages > maxExtents {
		return fmt.Errorf("more than %d physical pieces: %w", maxExtents, unix.EINVAL)
	}
	spec.ContiguousPages = min(spec.ContiguousPages, pages)
	return nil
}

// Exit ends the process: its memory is unmapped and its enclaves are closed, in the kernel's order.
func (p *Process) Exit() error {
	p.mu.Lock()
	p.exited = true
	mappings, files := p.mappings, slices.Clone(p.files)
	p.mu.Unlock()
	var errs []error
	for _, m := range mappings {
		m.Close()
	}
	for _, e := range files {
		if err := e.Close(); !errors.Is(err, os.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return join(errs...)
}

// page is the page at a user address, as get_user_pages finds it.
type page struct {
	mem  *memory
	off  uint64 // its place in mem's file
	phys uint64
	size uint64 // 4 KiB for an address inside a huge page: only the page's head knows its size
}

// find returns the page at addr with a reference on its memory, or EFAULT when nothing is mapped there.
func (p *Process) find(addr uint64) (page, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m, ok := p.at(addr)
	if !ok {
		return page{}, fmt.Errorf("no memory at %#x: %w", addr, unix.EFAULT)
	}
	m.mem.get()
	off := addr - m.addr
	e := m.mem.extentAt(off)
	size := m.mem.pageSize
	if off%m.mem.pageSize != 0 {
		size = PageSize4K
	}
	return page{mem: m.mem, off: off, phys: e.phys + off - e.off, size: size}, nil
}

// at returns the mapping with addr. The caller holds mu.
func (p *Process) at(addr uint64) (*Mapping, bool) {
	for _, m := range p.mappings {
		if addr >= m.addr && addr-m.addr < m.mem.size {
			return m, true
		}
	}
	return nil, false
}

// copyIn fills b from memory at addr; EFAULT when it is not all mapped.
func (p *Process) copyIn(b []byte, addr uint64) error {
	return p.access(b, addr, (*Mapping).ReadAt)
}

// copyOut writes b to memory at addr; EFAULT when it is not all mapped.
func (p *Process) copyOut(b []byte, addr uint64) error {
	return p.access(b, addr, (*Mapping).WriteAt)
}

func (p *Process) access(b []byte, addr uint64, move func(*Mapping, []byte, int64) (int, error)) error {
	for len(b) > 0 {
		p.mu.Lock()
		m, ok := p.at(addr)
		p.mu.Unlock()
		if !ok {
			return fmt.Errorf("no memory at %#x: %w", addr, unix.EFAULT)
		}
		n := min(uint64(len(b)), m.addr+m.mem.size-addr)
		if _, err := move(m, b[:n], int64(addr-m.addr)); err != nil {
			return fmt.Errorf("memory at %#x: %w: %w", addr, unix.EFAULT, err)
		}
		b, addr = b[n:], addr+n
	}
	return nil
}

// Addr is the mapping's user address; Size its bytes.
func (m *Mapping) Addr() uint64 { return m.addr }

// Size is the mapping's length in bytes.
func (m *Mapping) Size() uint64 { return m.mem.size }

// ReadAt reads from the memory, off bytes into the mapping. io.EOF at the mapping's end, os.ErrClosed after Close.
func (m *Mapping) ReadAt(b []byte, off int64) (int, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return 0, os.ErrClosed
	}
	return m.mem.file.ReadAt(b, off)
}

// WriteAt writes to the memory, off bytes into the mapping. io.ErrShortWrite when b goes past the mapping's end
// (nothing is written then), os.ErrClosed after Close.
func (m *Mapping) WriteAt(b []byte, off int64) (int, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return 0, os.ErrClosed
	}
	if off < 0 || uint64(off) > m.mem.size || uint64(len(b)) > m.mem.size-uint64(off) {
		return 0, fmt.Errorf("write of %d bytes at %d into memory of %d: %w", len(b), off, m.mem.size, io.ErrShortWrite)
	}
	return m.mem.file.WriteAt(b, off)
}

// Stored returns how many bytes of the memory are kept anywhere: 0 where all of it was given back to be zero.
func (m *Mapping) Stored() (uint64, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return 0, os.ErrClosed
	}
	info, err := m.mem.file.Stat()
	if err != nil {
		return 0, err
	}
	return uint64(info.Sys().(*syscall.Stat_t).Blocks) * 512, nil
}

// Close unmaps the memory. Pages that an enclave has stay its own until it is closed.
func (m *Mapping) Close() error {
	m.process.forget(m)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return os.ErrClosed
	}
	m.closed = true
	m.mem.put()
	return nil
}

// forget takes m out of the address space, so that no page of it is found any more.
func (p *Process) forget(m *Mapping) {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := make([]*Mapping, 0, len(p.mappings))
	for _, other := range p.mappings {
		if other != m {
			kept = append(kept, other)
		}
	}
	p.mappings = kept
}
