package conformance

// Device stands for the descriptor of /dev/nitro_enclaves, where a World wants one.
const Device = -1

// Memory is what kind of memory a World is asked to map.
type Memory int

const (
	Ordinary  Memory = iota // pages of 4 KiB, aligned to 2 MiB
	Huge2M                  // huge pages of 2 MiB
	Huge1G                  // huge pages of 1 GiB
	FarHuge2M               // huge pages of 2 MiB, not on the NUMA node of the CPU pool
	Scattered               // huge pages of 2 MiB, of which no two neighbours are physically contiguous
)

// World is a parent's process with an NE driver, and a CPU pool of two cores, CPUs 2 to 5. Codes are what a program
// finds in errno: 0, a kernel errno, or an NE_ERR_* code.
type World interface {
	// SetCPUs writes the driver's parameter ne_cpus.
	SetCPUs(list string) (code int)
	// CreateVM does NE_CREATE_VM.
	CreateVM() (enclave, code int)
	// Ioctl does an ioctl with arg as its structure, and fills arg with the answer.
	Ioctl(fd int, cmd uint32, arg []byte) (code int)
	// IoctlAt does an ioctl with an address where nothing is mapped.
	IoctlAt(fd int, cmd uint32, addr uint64) (code int)
	// IoctlElsewhere does an ioctl on an enclave's descriptor from another process that was handed it.
	IoctlElsewhere(enclave int, cmd uint32, arg []byte) (code int)
	// Map maps memory and returns its address; Write writes to it; Unmap unmaps all that Map mapped.
	Map(kind Memory, size uint64) (addr uint64)
	Write(addr uint64, data []byte)
	Unmap()
	Close(enclave int)
}
