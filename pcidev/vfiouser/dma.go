package vfiouser

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// DMA is the client's memory as it mapped it for the device. The zero value is
// an empty table, ready for use by several goroutines.
//
// Memory is reached with pread and pwrite, never through a mapping: the client
// may truncate its file at any time. An access to a range that is not mapped,
// not allowed or not backed by a file (the client may map memory without a
// descriptor) fails as a whole, before any of it is done, with an error that
// wraps unix.EFAULT.
type DMA struct {
	mu    sync.RWMutex // held for reading during an access: Unmap waits for it
	maps  []dmaMap     // by address, never overlapping
	files map[fileID]*dmaFile
}

type dmaMap struct {
	addr, size uint64
	off        uint64 // of addr in file
	flags      uint32
	file       *dmaFile // nil: not readable here
}

func (m *dmaMap) last() uint64 { return m.addr + (m.size - 1) }

// dmaFile is a file behind one or more maps: clients send a new descriptor of
// the same file with each, of which one is kept.
type dmaFile struct {
	id   fileID
	fd   int
	refs int
}

type fileID struct {
	dev, ino uint64
	mode     int // of the descriptor: O_RDONLY, O_RDWR ...
}

// Map adds a range of the client's memory, size bytes at address addr and at
// offset off of file fd (-1: none). flags are DMARead and DMAWrite. fd is Map's
// to close in every case. Errors wrap a unix.Errno: EEXIST for a range that
// overlaps another, ENOSPC over MaxDMAMaps or MaxDMAFiles, EINVAL for a file
// that is not a regular one, is too short, or is not open for what flags allow.
func (d *DMA) Map(addr, size, off uint64, flags uint32, fd int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := dmaMap{addr: addr, size: size, off: off, flags: flags}
	i, err := d.place(&m)
	if err != nil {
		closeFD(fd)
		return err
	}
	if fd >= 0 {
		if m.file, err = d.open(fd, &m); err != nil {
			return err
		}
	}
	d.maps = slices.Insert(d.maps, i, m)
	return nil
}

// place returns where m belongs in d.maps.
func (d *DMA) place(m *dmaMap) (int, error) {
	if m.size == 0 || m.addr > math.MaxUint64-(m.size-1) || m.off > math.MaxInt64 || m.size > math.MaxInt64-m.off {
		return 0, fmt.Errorf("dma map of %#x bytes at %#x: %w", m.size, m.addr, unix.EINVAL)
	}
	if len(d.maps) >= MaxDMAMaps {
		return 0, fmt.Errorf("more than %d dma maps: %w", MaxDMAMaps, unix.ENOSPC)
	}
	i := d.find(m.addr)
	if i < len(d.maps) && d.maps[i].addr <= m.last() {
		return 0, fmt.Errorf("dma map at %#x overlaps that at %#x: %w", m.addr, d.maps[i].addr, unix.EEXIST)
	}
	return i, nil
}

// find returns the index of the first map that ends at or after addr.
func (d *DMA) find(addr uint64) int {
	i, _ := slices.BinarySearchFunc(d.maps, addr, func(m dmaMap, a uint64) int { return cmp.Compare(m.last(), a) })
	return i
}

// open takes fd for m: it returns the file to use and closes fd if that is
// another descriptor of the same file, or on error.
func (d *DMA) open(fd int, m *dmaMap) (*dmaFile, error) {
	var st unix.Stat_t
	mode, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err == nil {
		mode &= unix.O_ACCMODE | unix.O_PATH
		err = unix.Fstat(fd, &st)
	}
	switch {
	case err != nil:
	case st.Mode&unix.S_IFMT != unix.S_IFREG, uint64(st.Size) < m.off+m.size:
		err = unix.EINVAL
	case mode != unix.O_RDWR && !(mode == unix.O_RDONLY && m.flags&DMAWrite == 0):
		err = unix.EINVAL
	}
	id := fileID{dev: st.Dev, ino: st.Ino, mode: mode}
	f := d.files[id]
	if err == nil && f == nil && len(d.files) >= MaxDMAFiles {
		err = unix.ENOSPC
	}
	if err != nil {
		closeFD(fd)
		return nil, fmt.Errorf("dma map at %#x: its file cannot be used: %w", m.addr, err)
	}
	if f != nil {
		closeFD(fd)
	} else {
		if d.files == nil {
			d.files = make(map[fileID]*dmaFile)
		}
		f = &dmaFile{id: id, fd: fd}
		d.files[id] = f
	}
	f.refs++
	return f, nil
}

func (d *DMA) release(f *dmaFile) {
	if f == nil {
		return
	}
	if f.refs--; f.refs == 0 {
		delete(d.files, f.id)
		closeFD(f.fd)
	}
}

// Unmap removes the map of exactly this range, once accesses under way are done.
// It returns an error that wraps unix.ENOENT if there is none.
func (d *DMA) Unmap(addr, size uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := d.find(addr)
	if i == len(d.maps) || d.maps[i].addr != addr || d.maps[i].size != size {
		return fmt.Errorf("no dma map of %#x bytes at %#x: %w", size, addr, unix.ENOENT)
	}
	d.release(d.maps[i].file)
	d.maps = slices.Delete(d.maps, i, i+1)
	return nil
}

// UnmapAll removes every map. The table stays usable.
func (d *DMA) UnmapAll() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.maps {
		d.release(d.maps[i].file)
	}
	d.maps = nil
}

// walk calls fn for each part of a range, in order, with the part's file, its
// offset there and its length, after checking that the whole range is mapped
// with all of flags. d.mu is held.
func (d *DMA) walk(addr, size uint64, flags uint32, fn func(f *dmaFile, off int64, n uint64) error) error {
	if size == 0 {
		return nil
	}
	last := addr + (size - 1)
	first := d.find(addr)
	end := first
	for next := addr; ; end++ {
		if end == len(d.maps) || last < addr || d.maps[end].addr > next ||
			d.maps[end].file == nil || d.maps[end].flags&flags != flags {
			return fmt.Errorf("dma access of %#x bytes at %#x: memory not mapped: %w", size, addr, unix.EFAULT)
		}
		if d.maps[end].last() >= last {
			break
		}
		next = d.maps[end].last() + 1
	}
	for i := first; i <= end; i++ {
		m := &d.maps[i]
		from, to := max(addr, m.addr), min(last, m.last())
		if err := fn(m.file, int64(m.off+(from-m.addr)), to-from+1); err != nil {
			return fmt.Errorf("dma access of %#x bytes at %#x: %w", size, addr, err)
		}
	}
	return nil
}

// Mapped reports whether a whole range can be read and written.
func (d *DMA) Mapped(addr, size uint64) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.walk(addr, size, DMARead|DMAWrite, func(*dmaFile, int64, uint64) error { return nil }) == nil
}

// ReadAt fills p from the client's memory at addr.
func (d *DMA) ReadAt(p []byte, addr uint64) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.walk(addr, uint64(len(p)), DMARead, func(f *dmaFile, off int64, n uint64) error {
		err := readFull(f.fd, p[:n], off)
		p = p[n:]
		return err
	})
}

// WriteAt copies p to the client's memory at addr.
func (d *DMA) WriteAt(p []byte, addr uint64) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.walk(addr, uint64(len(p)), DMAWrite, func(f *dmaFile, off int64, n uint64) error {
		err := writeFull(f.fd, p[:n], off)
		p = p[n:]
		return err
	})
}

// Zero makes a range read as zeros and gives its pages back where the file can
// (a hole), or else writes zeros.
func (d *DMA) Zero(addr, size uint64) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.walk(addr, size, DMAWrite, func(f *dmaFile, off int64, n uint64) error {
		return zero(f.fd, off, int64(n))
	})
}

const punchHole = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE

// zero punches a hole over the whole blocks of the range and writes zeros
// elsewhere: some file systems (hugetlbfs) leave a part of a block as it was.
func zero(fd int, off, n int64) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	block := max(st.Blksize, 1)
	from := (off + block - 1) / block * block
	to := (off + n) / block * block
	if from >= to || unix.Fallocate(fd, punchHole, from, to-from) != nil {
		return writeZeros(fd, off, n)
	}
	if err := writeZeros(fd, off, from-off); err != nil {
		return err
	}
	return writeZeros(fd, to, off+n-to)
}

var zeros [256 << 10]byte

func writeZeros(fd int, off, n int64) error {
	for n > 0 {
		part := min(n, int64(len(zeros)))
		if err := writeFull(fd, zeros[:part], off); err != nil {
			return err
		}
		off, n = off+part, n-part
	}
	return nil
}

func readFull(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := unix.Pread(fd, p, off)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case n == 0: // the client made its file shorter
			return unix.EFAULT
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

func writeFull(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := unix.Pwrite(fd, p, off)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case n == 0:
			return unix.EFAULT
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

func closeFD(fd int) {
	if fd >= 0 {
		unix.Close(fd)
	}
}
