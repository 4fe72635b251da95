package main

import (
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/sim/conformance"
	"github.com/nesim/nesim/sim/nedriver"
)

const (
	device     = "/dev/nitro_enclaves"
	parameter  = "/sys/module/nitro_enclaves/parameters/ne_cpus"
	mib        = 1 << 20
	hugePage   = 2 * mib
	bindPolicy = 2 // MPOL_BIND of <linux/mempolicy.h>
)

// world is this process with Linux's driver.
type world struct {
	device int
	mapped [][2]uintptr // address and size
}

func newWorld() *world {
	fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	check(err)
	return &world{device: fd}
}

// codeOf is errno's value.
func codeOf(err error) int {
	var errno unix.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &errno):
		return int(errno)
	}
	panic(err)
}

func ioctl(fd int, cmd uint32, addr uintptr) (int, int) {
	r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(cmd), addr)
	return int(r), int(errno)
}

func (w *world) fd(fd int) int {
	if fd == conformance.Device {
		return w.device
	}
	return fd
}

func (w *world) SetCPUs(list string) int {
	return codeOf(os.WriteFile(parameter, []byte(list), 0))
}

func (w *world) CreateVM() (int, int) {
	var slot uint64
	return ioctl(w.device, nedriver.NECreateVM, uintptr(unsafe.Pointer(&slot)))
}

func (w *world) Ioctl(fd int, cmd uint32, arg []byte) int {
	_, code := ioctl(w.fd(fd), cmd, uintptr(unsafe.Pointer(unsafe.SliceData(arg))))
	return code
}

func (w *world) IoctlAt(fd int, cmd uint32, addr uint64) int {
	_, code := ioctl(w.fd(fd), cmd, uintptr(addr))
	return code
}

// IoctlElsewhere starts this program again, with the descriptor, for one ioctl.
func (w *world) IoctlElsewhere(fd int, cmd uint32, arg []byte) int {
	cmdline := exec.Command("/proc/self/exe", "ioctl", strconv.FormatUint(uint64(cmd), 10), hex.EncodeToString(arg))
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	check(err)
	file := os.NewFile(uintptr(dup), "enclave")
	defer file.Close()
	cmdline.ExtraFiles = []*os.File{file}
	out, err := cmdline.Output()
	check(err)
	code, err := strconv.Atoi(string(out))
	check(err)
	return code
}

// ioctlElsewhere is that other process.
func ioctlElsewhere(cmd, arg string) {
	number, err := strconv.ParseUint(cmd, 10, 32)
	check(err)
	data, err := hex.DecodeString(arg)
	check(err)
	_, code := ioctl(3, uint32(number), uintptr(unsafe.Pointer(unsafe.SliceData(data))))
	os.Stdout.WriteString(strconv.Itoa(code))
}

func (w *world) Map(kind conformance.Memory, size uint64) uint64 {
	var addr uintptr
	switch kind {
	case conformance.Ordinary:
		const align = hugePage
		addr = w.mmap(uintptr(size)+align, 0)
		addr = (addr + align - 1) &^ (align - 1)
		check(unix.Madvise(bytesAt(uint64(addr), size), unix.MADV_NOHUGEPAGE))
	case conformance.Huge2M:
		addr = w.mmap(uintptr(size), unix.MAP_HUGETLB|unix.MAP_HUGE_2MB)
	case conformance.Huge1G:
		addr = w.mmap(uintptr(size), unix.MAP_HUGETLB|unix.MAP_HUGE_1GB)
	case conformance.FarHuge2M:
		addr = w.mmap(uintptr(size), unix.MAP_HUGETLB|unix.MAP_HUGE_2MB)
		nodes := uint64(1 << 1)
		_, _, errno := unix.Syscall6(unix.SYS_MBIND, addr, uintptr(size), bindPolicy, uintptr(unsafe.Pointer(&nodes)), 64, 0)
		check(errnoError(errno))
	case conformance.Scattered:
		return w.scattered(size)
	}
	for at := uint64(0); at < size; at += hugePage {
		bytesAt(uint64(addr)+at, 1)[0] = 0 // has the page allocated
	}
	return uint64(addr)
}

// scattered maps one huge page again and again: no neighbours are contiguous, and only one page is needed.
func (w *world) scattered(size uint64) uint64 {
	fd, err := unix.MemfdCreate("scattered", unix.MFD_CLOEXEC|unix.MFD_HUGETLB|unix.MFD_HUGE_2MB)
	check(err)
	defer unix.Close(fd)
	check(unix.Ftruncate(fd, hugePage))
	place, _, errno := unix.Syscall6(unix.SYS_MMAP, 0, uintptr(size)+hugePage, unix.PROT_NONE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE, ^uintptr(0), 0)
	check(errnoError(errno))
	addr := (place + hugePage - 1) &^ uintptr(hugePage-1)
	for at := uintptr(0); at < uintptr(size); at += hugePage {
		_, _, errno := unix.Syscall6(unix.SYS_MMAP, addr+at, hugePage, unix.PROT_READ|unix.PROT_WRITE,
			unix.MAP_SHARED|unix.MAP_FIXED, uintptr(fd), 0)
		check(errnoError(errno))
		bytesAt(uint64(addr+at), 1)[0] = 0
	}
	w.mapped = append(w.mapped, [2]uintptr{place, uintptr(size) + hugePage})
	return uint64(addr)
}

func (w *world) mmap(size, flags uintptr) uintptr {
	got, _, errno := unix.Syscall6(unix.SYS_MMAP, 0, size, unix.PROT_READ|unix.PROT_WRITE,
		flags|unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, ^uintptr(0), 0)
	check(errnoError(errno))
	w.mapped = append(w.mapped, [2]uintptr{got, size})
	return got
}

// bytesAt is mapped memory as a slice.
func bytesAt(addr, size uint64) []byte {
	return unsafe.Slice(*(**byte)(unsafe.Pointer(&addr)), size)
}

func (w *world) Write(addr uint64, data []byte) { copy(bytesAt(addr, uint64(len(data))), data) }

func (w *world) Unmap() {
	for _, m := range w.mapped {
		_, _, errno := unix.Syscall(unix.SYS_MUNMAP, m[0], m[1], 0)
		check(errnoError(errno))
	}
	w.mapped = nil
}

func (w *world) Close(fd int) { check(unix.Close(fd)) }

func errnoError(errno unix.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}
