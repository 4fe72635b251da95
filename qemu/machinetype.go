package qemu

import (
	"fmt"
	"os"
)

// MachineType is what a guest's kernel finds beside its processors and memory.
type MachineType string

const (
	// AutoMachine leaves the choice to the kernel: [Nitro] for one that takes virtio-mmio devices from its command line,
	// else [ACPI]. It is for settings; a Config has one of the other two.
	AutoMachine MachineType = "auto"
	// Nitro is AWS's: neither ACPI nor PCIe, but an MP table, a PIT and a PIC; the devices stand on the command line.
	Nitro MachineType = "nitro"
	// ACPI is QEMU's microvm as it is, whose devices its ACPI tables describe.
	ACPI MachineType = "acpi"
)

// ParseMachineType reads auto, nitro or acpi; "" means $NESIM_MACHINE, else auto.
func ParseMachineType(s string) (MachineType, error) {
	from := "machine"
	if s == "" {
		from, s = "NESIM_MACHINE", os.Getenv("NESIM_MACHINE")
	}
	switch m := MachineType(s); m {
	case "":
		return AutoMachine, nil
	case AutoMachine, Nitro, ACPI:
		return m, nil
	}
	return "", fmt.Errorf("%s %q: choose auto, nitro or acpi", from, s)
}

// options are the -M option's value. The firmware is QEMU's small one: it keeps its tables below 1 MiB, where nothing
// else is laid. microvm's usual firmware lays the ACPI tables at the top of memory, where the ramdisk may lie too.
func (m MachineType) options() string {
	if m == Nitro {
		return "microvm,memory-backend=mem,acpi=off,pcie=off,pit=on,pic=on,auto-kernel-cmdline=off"
	}
	// Everything else stays at its default: rtc=off makes a kernel wait a second for the clock that is missing, pic=off with
	// pit=off hangs it.
	return "microvm,memory-backend=mem"
}

// MaxLowMemory is the most memory that a microvm has below 4 GiB, in bytes (QEMU, hw/i386/microvm.c, microvm_memory_init).
const MaxLowMemory = 3 << 30

// LowMemory returns how much of a guest's memory lies below 4 GiB, where its kernel and ramdisk are laid, in bytes.
func LowMemory(memory uint64) uint64 { return min(memory, MaxLowMemory) }

// firmware is QEMU's -bios for every machine type.
const firmware = "qboot.rom"

// The virtio-mmio devices of a microvm without ACPI (QEMU, hw/i386/microvm.c): VIRTIO_MMIO_BASE of its header, the size
// of a device's registers, and virtio_irq_base.
const (
	mmioBase     = 0xfeb00000
	mmioSize     = 512
	mmioFirstIRQ = 5
)

// deviceWord is the kernel parameter that describes the virtio-mmio device in a slot (Linux,
// drivers/virtio/virtio_mmio.c), as QEMU would add it. QEMU adds it behind everything else, where a "--" of the image's
// command line hides it from the kernel.
func deviceWord(slot int) string {
	return fmt.Sprintf("virtio_mmio.device=%d@%#x:%d", mmioSize, mmioBase+slot*mmioSize, mmioFirstIRQ+slot)
}
