package conformance

import (
	"encoding/binary"
	"fmt"
	"io"
	"text/tabwriter"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/sim/nedriver"
)

// Row is one call and its outcome.
type Row struct {
	Call  string `json:"call"`
	Code  int    `json:"code"`
	Value uint64 `json:"value,omitempty"` // what the call wrote back, where that is worth a look
}

// Outcome is the row's code by its name, and its value.
func (r Row) Outcome() string {
	name := "0"
	switch {
	case r.Code >= int(nedriver.NEErrVCPUAlreadyUsed):
		name = nedriver.Errno(r.Code).Name()
	case r.Code > 0:
		name = unix.ErrnoName(unix.Errno(r.Code))
	}
	if r.Value != 0 {
		name += fmt.Sprintf(", %#x", r.Value)
	}
	return name
}

// WriteTable writes the rows of two worlds beside each other, and reports how many are not the same.
func WriteTable(w io.Writer, left, right string, a, b []Row) (differences int) {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(out, "call\t%s\t%s\t\n", left, right)
	for i := range max(len(a), len(b)) {
		var x, y Row
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		mark := ""
		if x != y {
			differences++
			mark = "<-- differs"
		}
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\n", x.Call, x.Outcome(), y.Outcome(), mark)
	}
	out.Flush()
	return differences
}

const (
	mib = 1 << 20

	pool         = "2-5" // the CPU pool
	nowhere      = 0x10  // an address where nothing is mapped
	kernelMemory = 0xffff_8000_0000_0000
	unmapped     = 1 << 42 // where neither world maps anything
	fixedCID     = 40
	foreignCID   = 41
	imageOffset  = nedriver.EIFLoadOffset
	manyPages    = 4097 // one more than the regions that a slot may have (pcidev.MaxMemRegions)
	unknownIoctl = 0xAE7F
)

// table makes calls and keeps the rows.
type table struct {
	World
	image []byte
	rows  []Row
}

// Table makes every call whose errors the UAPI header (include/uapi/linux/nitro_enclaves.h) tells of and a program can
// provoke, and some that the kernel answers by itself. image is an EIF of less than 2 MiB; a VM that runs it must not
// end before it is closed.
//
// NE_ERR_VCPU_INVALID_CPU_CORE is not among them: the driver gives it for a core in the pool whose id is past the
// number of cores, and a pool with such a core is refused when it is set.
func Table(w World, image []byte) []Row {
	t := &table{World: w, image: image}
	for _, part := range []func(){t.pool, t.device, t.vcpus, t.imageInfo, t.memory, t.start, t.running} {
		part()
	}
	return t.rows
}

func (t *table) row(code int, value uint64, format string, args ...any) {
	t.rows = append(t.rows, Row{Call: fmt.Sprintf(format, args...), Code: code, Value: value})
}

// create makes an enclave that the part needs.
func (t *table) create(what string) int {
	fd, code := t.CreateVM()
	t.row(code, 0, "NE_CREATE_VM, %s", what)
	return fd
}

func (t *table) addVCPU(fd int, cpu uint32, what string) {
	arg := binary.LittleEndian.AppendUint32(nil, cpu)
	code := t.Ioctl(fd, nedriver.NEAddVCPU, arg)
	t.row(code, uint64(binary.LittleEndian.Uint32(arg)), "NE_ADD_VCPU %d, %s", cpu, what)
}

func words(values ...uint64) (b []byte) {
	for _, v := range values {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

func (t *table) addMemory(fd int, flags, size, addr uint64, what string) {
	code := t.Ioctl(fd, nedriver.NESetUserMemoryRegion, words(flags, size, addr))
	t.row(code, 0, "NE_SET_USER_MEMORY_REGION, %s", what)
}

func (t *table) imageLoadInfo(fd int, flags uint64, what string) {
	arg := words(flags, 0)
	code := t.Ioctl(fd, nedriver.NEGetImageLoadInfo, arg)
	t.row(code, binary.LittleEndian.Uint64(arg[8:]), "NE_GET_IMAGE_LOAD_INFO, %s", what)
}

func (t *table) startEnclave(fd int, flags, cid uint64, what string) {
	arg := words(flags, cid)
	code := t.Ioctl(fd, nedriver.NEStartEnclave, arg)
	value := uint64(0)
	if code == 0 {
		value = binary.LittleEndian.Uint64(arg[8:])
	}
	t.row(code, value, "NE_START_ENCLAVE, %s", what)
}

func (t *table) pool() {
	fd := t.create("an enclave open")
	t.row(t.SetCPUs(pool), 0, "ne_cpus=%s while there is an enclave", pool)
	t.Close(fd)
	for _, list := range []string{"0-3", "1", "2", "3-4", "2-5,100000", "5-2", "2,x", "6-"} {
		t.row(t.SetCPUs(list), 0, "ne_cpus=%s", list)
	}
	t.create("no CPU pool")
	t.row(t.SetCPUs(pool), 0, "ne_cpus=%s", pool)
}

func (t *table) device() {
	t.row(t.Ioctl(Device, unknownIoctl, words(0)), 0, "an unknown ioctl on the device")
	t.row(t.Ioctl(Device, nedriver.NEAddVCPU, words(0)), 0, "NE_ADD_VCPU on the device")
	t.row(t.IoctlAt(Device, nedriver.NECreateVM, nowhere), 0, "NE_CREATE_VM, bad address")
	fd := t.create("good")
	t.row(t.Ioctl(fd, unknownIoctl, words(0)), 0, "an unknown ioctl on the enclave")
	t.row(t.Ioctl(fd, nedriver.NECreateVM, words(0)), 0, "NE_CREATE_VM on the enclave")
	for _, c := range []struct {
		name string
		cmd  uint32
	}{
		{"NE_ADD_VCPU", nedriver.NEAddVCPU},
		{"NE_GET_IMAGE_LOAD_INFO", nedriver.NEGetImageLoadInfo},
		{"NE_SET_USER_MEMORY_REGION", nedriver.NESetUserMemoryRegion},
		{"NE_START_ENCLAVE", nedriver.NEStartEnclave},
	} {
		t.row(t.IoctlAt(fd, c.cmd, nowhere), 0, "%s, bad address", c.name)
	}
	t.Close(fd)
}

func (t *table) vcpus() {
	fd := t.create("for vCPUs")
	t.addVCPU(fd, 1<<20, "out of range")
	t.addVCPU(fd, 1, "not in the pool")
	t.addVCPU(fd, 2, "good")
	t.addVCPU(fd, 2, "again")
	t.addVCPU(fd, 0, "the driver chooses: the same core's")
	code := t.IoctlElsewhere(fd, nedriver.NEAddVCPU, binary.LittleEndian.AppendUint32(nil, 0))
	t.row(code, 0, "NE_ADD_VCPU 0, from another process")
	t.addVCPU(fd, 0, "the driver chooses, from the core that the other process's call took")
	t.addVCPU(fd, 5, "good")
	t.addVCPU(fd, 0, "the pool is empty")
	t.create("the pool is empty")
	t.Close(fd)
	again := t.create("the pool is full again")
	other := t.create("a second one")
	t.addVCPU(again, 4, "good")
	t.addVCPU(other, 5, "of a core that another enclave has")
	t.Close(again)
	t.Close(other)
}

func (t *table) imageInfo() {
	fd := t.create("for its image")
	t.imageLoadInfo(fd, 0, "no flag")
	t.imageLoadInfo(fd, 2, "an unknown flag")
	t.imageLoadInfo(fd, nedriver.NEEIFImage, "good")
	t.Close(fd)
}

func (t *table) memory() {
	fd := t.create("for memory")
	huge := t.Map(Huge2M, 8*mib)
	t.addMemory(fd, 1, 2*mib, huge, "an unknown flag")
	t.addMemory(fd, 0, 4096, huge, "4 KiB")
	t.addMemory(fd, 0, 3*mib, huge, "3 MiB")
	t.addMemory(fd, 0, 0, huge, "nothing")
	t.addMemory(fd, 0, 2*mib, huge+4096, "unaligned")
	t.addMemory(fd, 0, 2*mib, kernelMemory, "a kernel address")
	t.addMemory(fd, 0, 1<<63, huge, "past the end of user space")
	t.addMemory(fd, 0, 2*mib, unmapped, "nothing mapped")
	t.addMemory(fd, 0, 2*mib, t.Map(Ordinary, 2*mib), "ordinary pages")
	t.addMemory(fd, 0, 4*mib, huge, "good")
	t.addMemory(fd, 0, 4*mib, huge, "again")
	t.addMemory(fd, 0, 4*mib, huge+2*mib, "overlapping the one before")
	t.addMemory(fd, 0, 2*mib, huge+4*mib, "beside it, good")
	code := t.IoctlElsewhere(fd, nedriver.NESetUserMemoryRegion, words(0, 2*mib, huge+6*mib))
	t.row(code, 0, "NE_SET_USER_MEMORY_REGION, from another process")
	t.addMemory(fd, 0, manyPages*2*mib, t.Map(Scattered, manyPages*2*mib), "one region too many")
	t.addMemory(fd, 0, 2*mib, t.Map(FarHuge2M, 2*mib), "on another NUMA node")
	gigantic := t.Map(Huge1G, 1024*mib)
	t.addMemory(fd, 0, 2*mib, gigantic+2*mib, "inside a page of 1 GiB")
	t.addMemory(fd, 0, 1024*mib, gigantic, "a page of 1 GiB, good")
	t.Close(fd)
	t.Unmap()
}

func (t *table) start() {
	fd := t.create("for the start")
	t.startEnclave(fd, 2, 0, "an unknown flag")
	for _, cid := range []uint64{1, 2, 3, 0xffff_ffff, 1 << 32} {
		t.startEnclave(fd, 0, cid, fmt.Sprintf("CID %d", cid))
	}
	t.startEnclave(fd, 0, 0, "no memory")
	memory := t.Map(Huge2M, 64*mib)
	t.addMemory(fd, 0, 62*mib, memory, "62 MiB, good")
	t.startEnclave(fd, 0, 0, "62 MiB")
	t.addMemory(fd, 0, 2*mib, memory+62*mib, "2 MiB more, good")
	t.startEnclave(fd, 0, 0, "no vCPU")
	t.addVCPU(fd, 2, "good")
	t.startEnclave(fd, 0, 0, "half a core")
	t.addVCPU(fd, 3, "good")
	t.startEnclave(fd, 0, fixedCID, "no image: good, and nothing runs in it")
	t.startEnclave(fd, 0, fixedCID, "again")
	t.addVCPU(fd, 0, "it runs")
	t.Close(fd)
	t.Unmap()

	damaged := append([]byte(nil), t.image...)
	damaged[len(damaged)-1] ^= 1
	t.Close(t.launch(t.Map(Huge2M, 64*mib), damaged, "a damaged image: the same"))
	t.Unmap()
}

func (t *table) running() {
	memory := t.Map(Huge2M, 64*mib)
	first := t.launch(memory, t.image, "good")
	t.startEnclave(first, 0, fixedCID, "again")
	t.addVCPU(first, 0, "it runs")
	t.addMemory(first, 0, 2*mib, memory, "it runs")
	t.imageLoadInfo(first, nedriver.NEEIFImage, "it runs")
	t.row(t.SetCPUs(pool), 0, "ne_cpus=%s while an enclave runs", pool)

	second := t.create("a second one")
	more := t.Map(Huge2M, 64*mib)
	t.Write(more+imageOffset, t.image)
	t.addMemory(second, 0, 64*mib, memory, "another enclave's")
	t.addMemory(second, 0, 64*mib, more, "good")
	t.addVCPU(second, 0, "the driver chooses")
	t.addVCPU(second, 0, "the driver chooses")
	t.startEnclave(second, 0, fixedCID, "a CID in use")
	t.startEnclave(second, nedriver.NEEnclaveDebugMode, foreignCID, "debug mode, good")
	t.Close(second)
	t.Close(first)
	t.Unmap()
}

// launch starts an enclave with all that it needs, and an image at memory.
func (t *table) launch(memory uint64, image []byte, what string) (fd int) {
	fd = t.create("good")
	t.Write(memory+imageOffset, image)
	t.addMemory(fd, 0, 64*mib, memory, "good")
	t.addVCPU(fd, 2, "good")
	t.addVCPU(fd, 3, "good")
	t.startEnclave(fd, 0, fixedCID, what)
	return fd
}
