package primary

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/nesim/nesim/qemu"
	"github.com/nesim/nesim/sim/primary/plan"
)

// ports are the virtio-serial ports; their sockets are QEMU's first descriptors, in this order.
var ports = []string{plan.Stdin, plan.Stdout, plan.Stderr, plan.Result}

// The files that QEMU is born with, behind standard error, in the order of os/exec's ExtraFiles.
const (
	portFD   = 3
	initrdFD = portFD + 4 // len(ports)
	vsockFD  = initrdFD + 1
)

// arguments is QEMU's command line, without its first word, under accel (kvm or tcg).
func (c *Config) arguments(accel qemu.Accel) []string {
	args := []string{
		"-name", "guest=nesim-parent,debug-threads=on",
		"-no-user-config", "-nodefaults", "-display", "none", "-no-reboot",
		"-M", "q35,hpet=off,vmport=off,sata=off,smbus=off,i8042=off",
		"-smp", fmt.Sprintf("%d,sockets=1,cores=%d,threads=%d", c.CPUs, c.CPUs/c.ThreadsPerCore, c.ThreadsPerCore),
		"-accel", string(accel), "-cpu", cpuModel(accel),
		"-kernel", c.Kernel.Image, "-initrd", fmt.Sprintf("/dev/fd/%d", initrdFD), "-append", c.kernelCmdline(accel),
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-device", "pvpanic-pci",
		"-device", "virtio-serial-pci",
	}
	args = append(args, c.smbios()...)
	if c.QEMU.Sandbox != "" {
		args = append(args, "-sandbox", c.QEMU.Sandbox)
	}
	args = append(args, c.device()...)
	args = append(args, c.memory()...)
	for i, name := range ports {
		args = append(args,
			"-chardev", fmt.Sprintf("socket,id=port%d,fd=%d", i, portFD+i),
			"-device", fmt.Sprintf("virtserialport,chardev=port%d,name=%s,nr=%d", i, name, i+1))
	}
	if c.Vsock != nil {
		args = append(args,
			"-chardev", fmt.Sprintf("socket,id=vsock,fd=%d", vsockFD),
			"-device", "vhost-user-vsock-pci,chardev=vsock")
	}
	return args
}

// device attaches the NE PCI device.
func (c *Config) device() []string {
	const attach = `{"driver":"vfio-user-pci","bus":%q,"rombar":0,"socket":{"type":"unix","path":%q}}`
	if c.BehindPort {
		return []string{"-device", "pcie-root-port,id=neport,chassis=1,slot=1", "-device", fmt.Sprintf(attach, "neport", c.PCISocket)}
	}
	return []string{"-device", fmt.Sprintf(attach, "pcie.0", c.PCISocket)}
}

// memory is shared with the device and the vsock's back end, by its descriptors.
func (c *Config) memory() []string {
	args := []string{
		"-m", strconv.Itoa(c.MemoryMiB + c.FarMiB),
		"-object", fmt.Sprintf("memory-backend-memfd,id=near,share=on,size=%dM", c.MemoryMiB),
		"-numa", fmt.Sprintf("node,nodeid=0,cpus=0-%d,memdev=near", c.CPUs-1),
	}
	if c.FarMiB > 0 {
		args = append(args,
			"-object", fmt.Sprintf("memory-backend-memfd,id=far,share=on,size=%dM", c.FarMiB),
			"-numa", "node,nodeid=1,memdev=far")
	}
	return args
}

// cpuModel is one with threads in a core, which the NE driver looks at, and pages of 1 GiB. TCG's AMD models have no
// such threads.
func cpuModel(accel qemu.Accel) string {
	if accel == qemu.TCG {
		return "Skylake-Client,pdpe1gb=on"
	}
	return "host"
}

// kernelCmdline has the huge pages set aside while the kernel starts, when there is no lack of contiguous memory: the
// kernel itself may not lie just anywhere then, and does not clear every page that it takes.
func (c *Config) kernelCmdline(accel qemu.Accel) string {
	words := []string{"console=ttyS0", "quiet", "panic=-1", "rdinit=" + plan.Init, "init_on_alloc=0", "nokaslr"}
	if c.HugeGiB > 0 {
		words = append(words, "hugepagesz=1G", fmt.Sprint("hugepages=0:", c.HugeGiB))
	}
	words = append(words, "hugepagesz=2M", fmt.Sprintf("hugepages=0:%d", c.HugeMiB/2))
	if c.FarMiB > 0 {
		words[len(words)-1] += fmt.Sprintf(",1:%d", c.FarMiB/4)
	}
	if accel == qemu.TCG {
		words = append(words, qemu.TCGCmdline())
	}
	return strings.Join(words, " ")
}
