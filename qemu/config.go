package qemu

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// Limits of one machine. maxCPUs is QEMU's own for microvm (hw/i386/microvm.c, max_cpus);
// maxCmdline is the longest command line an x86 Linux kernel reads (COMMAND_LINE_SIZE in
// arch/x86/include/asm/setup.h), its closing NUL included.
const (
	maxCPUs     = 288
	maxMemory   = 1 << 40 // bytes; beyond any host this runs on, within what QEMU's parsers take
	maxCmdline  = 2048
	memoryUnit  = 1 << 20 // QEMU wants whole pages; we want whole MiB
	maxSockPath = 107     // sun_path of sockaddr_un (unix(7)) without its NUL
)

// Config describes one machine.
type Config struct {
	// Name is shown by ps; it need not be unique.
	Name string
	// Binary is the path of qemu-system-x86_64, or of a script that execs it.
	Binary string
	// Sandbox is what QEMU is given for -sandbox, such as setup.QEMU's; empty means none.
	Sandbox string
	// CPUs is the number of vCPUs, 1 to 288.
	CPUs int
	// MemoryBytes is the guest's memory in bytes, whole MiB.
	MemoryBytes uint64
	// Kernel is a bzImage or a PVH vmlinux, Initrd its ramdisk or nil; any file that can be opened
	// again through /proc, memfds too. Neither's offset is used or moved.
	Kernel, Initrd *os.File
	// Cmdline is the kernel's command line, to which under TCG, and on the Nitro machine, a few parameters are added: 2047 bytes
	// in all.
	Cmdline string
	// Console takes the guest's first serial port, one Write at a time; nil discards it. A slow
	// writer loses the oldest text beyond 1 MiB, never the newest. A Write that never returns is
	// left behind when the machine ends.
	Console io.Writer

	// VsockSocket and NSMSocket are the UNIX sockets of the vhost-user back ends; empty means no
	// such device. They must be listening before Start, and take a second connection when the
	// machine starts again on another machine type.
	VsockSocket, NSMSocket string
	// VhostVsockCID, when not 0, gives the guest the host kernel's vhost-vsock with this CID instead.
	VhostVsockCID uint32

	// Accel is the accelerator; "" means $NESIM_ACCEL, else auto.
	Accel Accel
	// ProbeKernel is the path of a good kernel, by which is found out whether KVM works; empty: Kernel takes its place.
	ProbeKernel string
	// SingleThread lets the vCPUs take turns on one thread, under TCG: for machines that share few
	// processors with others.
	SingleThread bool
	// Machines are the machine types to try in turn: Nitro, ACPI. None means ACPI.
	Machines []MachineType
	// Say is given a line for people at what takes time or goes another way than expected: the probing of KVM, another start.
	// It may be nil.
	Say func(line string)
}

// check refuses what QEMU would refuse later or understand differently.
func (c *Config) check() error {
	switch {
	case c.Binary == "":
		return errors.New("no QEMU binary given")
	case c.CPUs < 1 || c.CPUs > maxCPUs:
		return fmt.Errorf("%d vCPUs: a microvm has 1 to %d", c.CPUs, maxCPUs)
	case c.MemoryBytes == 0 || c.MemoryBytes%memoryUnit != 0:
		return fmt.Errorf("%d bytes of memory: want a whole number of MiB", c.MemoryBytes)
	case c.MemoryBytes > maxMemory:
		return fmt.Errorf("%d bytes of memory: more than the %d a microvm may have", c.MemoryBytes, uint64(maxMemory))
	case c.Kernel == nil:
		return errors.New("no kernel given")
	case c.VsockSocket != "" && c.VhostVsockCID != 0:
		return errors.New("two vsock devices: choose the vhost-user socket or the kernel's vhost-vsock")
	case c.VhostVsockCID == 1 || c.VhostVsockCID == 2 || c.VhostVsockCID == 1<<32-1:
		return fmt.Errorf("vhost-vsock with CID %d: that CID is reserved", c.VhostVsockCID)
	}
	for what, s := range map[string]string{
		"name": c.Name, "kernel command line": c.Cmdline, "vsock socket": c.VsockSocket, "NSM socket": c.NSMSocket,
	} {
		if strings.ContainsRune(s, 0) {
			return fmt.Errorf("the %s has a NUL byte in it", what)
		}
	}
	for _, path := range []string{c.VsockSocket, c.NSMSocket} {
		if len(path) > maxSockPath {
			return fmt.Errorf("socket path %s: longer than %d bytes", path, maxSockPath)
		}
	}
	return nil
}
