package primary

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/dustin/go-humanize/english"

	"github.com/nesim/nesim/qemu"
	"github.com/nesim/nesim/qemu/setup"
)

// Config shapes a primary VM and says what runs in it. Zero values take the defaults.
type Config struct {
	QEMU    setup.QEMU
	Kernel  setup.Kernel
	Busybox string // path of a static busybox
	Accel   qemu.Accel

	PCISocket string // where the NE PCI device is served, by vfio-user
	// BehindPort puts the device behind a PCIe root port, by which the VM can reset it.
	BehindPort bool
	// Say is given a line for people when it is found out whether KVM works here; may be nil.
	Say func(string)
	// Vsock connects to the vhost-user back end of the VM's vsock device. nil: the VM has no vsock.
	Vsock func(context.Context) (*os.File, error)

	// InstanceID is the EC2 instance ID that the VM's SMBIOS tables have; empty: they are QEMU's own.
	InstanceID string

	CPUs           int    // default 4
	ThreadsPerCore int    // default 2, as on EC2's x86 instances
	CPUPool        string // a CPU list, for the NE driver's parameter ne_cpus; default: all but the first core
	MemoryMiB      int    // default 2048
	HugeMiB        int    // of it, set aside in pages of 2 MiB; default: half
	HugeGiB        int    // and in pages of 1 GiB; default: none
	FarMiB         int    // memory besides, half of it in pages of 2 MiB, on a second NUMA node, which has no CPUs; default: none

	Root   string // a folder: the VM's root directory; empty: none
	Copies []Copy // more files

	Command string // for sh -c; empty: a login shell that reads Stdin
	// Terminal gives the command a terminal, of so many rows and columns where that is known.
	Terminal      bool
	Term          string
	Rows, Columns uint16

	Stdin          io.Reader // nil: none. It is read ahead of the command.
	Stdout, Stderr io.Writer // of the command; with a terminal all goes to Stdout
	KernelLog      io.Writer // the kernel's messages; nil: kept for errors only
}

// Copy puts a file or folder of the host into the VM.
type Copy struct {
	From string
	To   string // absolute; empty: the same name in /root, where the command begins
}

// ParseCopy reads FILE or FILE:PATH.
func ParseCopy(arg string) (Copy, error) {
	from, to, _ := strings.Cut(arg, ":")
	if from == "" || to != "" && !strings.HasPrefix(to, "/") || to == "" && strings.HasSuffix(arg, ":") {
		return Copy{}, fmt.Errorf("%q: want FILE, or FILE:PATH with an absolute path", arg)
	}
	return Copy{from, to}, nil
}

const (
	maxCPUs   = 255     // of QEMU's q35 without an interrupt-remapping IOMMU
	maxMemory = 1 << 20 // MiB
	// systemMiB is memory for the kernel and its start.
	systemMiB = 192
)

func (c *Config) setDefaults() error {
	if c.CPUs == 0 {
		c.CPUs = 4
	}
	if c.ThreadsPerCore == 0 {
		c.ThreadsPerCore = 2
	}
	if c.MemoryMiB == 0 {
		c.MemoryMiB = 2048
	}
	if c.HugeMiB == 0 && c.HugeGiB == 0 {
		c.HugeMiB = c.MemoryMiB / 2
	}
	if c.CPUPool == "" && c.CPUs > c.ThreadsPerCore {
		c.CPUPool = fmt.Sprintf("%d-%d", c.ThreadsPerCore, c.CPUs-1)
	}
	if c.Stdout == nil {
		c.Stdout = io.Discard
	}
	if c.Stderr == nil {
		c.Stderr = io.Discard
	}
	if c.Term == "" {
		c.Term = "linux"
	}
	return c.check()
}

func (c *Config) check() error {
	huge := c.HugeMiB + c.HugeGiB<<10
	switch {
	case c.CPUs < 1 || c.CPUs > maxCPUs:
		return fmt.Errorf("%d CPUs: a primary VM has 1 to %d", c.CPUs, maxCPUs)
	case c.ThreadsPerCore < 1 || c.ThreadsPerCore > 2 || c.CPUs%c.ThreadsPerCore != 0:
		return fmt.Errorf("%s cannot form whole cores of %s: a core has 1 or 2", english.Plural(c.CPUs, "CPU", ""), english.Plural(c.ThreadsPerCore, "thread", ""))
	case c.MemoryMiB < 0 || c.MemoryMiB > maxMemory || c.HugeMiB < 0 || c.HugeMiB > maxMemory || c.HugeGiB < 0 || c.HugeGiB > maxMemory>>10:
		return fmt.Errorf("memory: a primary VM has up to %d MiB", maxMemory)
	case c.FarMiB < 0 || c.FarMiB > maxMemory || c.FarMiB%4 != 0:
		return fmt.Errorf("%d MiB on the second NUMA node: want a multiple of 4", c.FarMiB)
	case c.HugeMiB%2 != 0:
		return fmt.Errorf("%d MiB of huge pages: they have 2 MiB each", c.HugeMiB)
	case huge+systemMiB > c.MemoryMiB:
		return fmt.Errorf("%d MiB of huge pages do not fit into %d MiB of memory: give the primary VM %d MiB at least", huge, c.MemoryMiB, huge+systemMiB)
	case strings.ContainsRune(c.CPUPool, 0) || strings.ContainsRune(c.Command, 0):
		return errors.New("the command or the CPU pool has a NUL byte in it")
	}
	return nil
}
