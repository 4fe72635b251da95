package qemu

import (
	"fmt"
	"strconv"
	"strings"
)

// The files a QEMU process is born with, after stdin, stdout and stderr, in os/exec's ExtraFiles order.
const (
	qmpFD    = 3
	kernelFD = 4
	initrdFD = 5
)

// tcgCodeMiB bounds what QEMU keeps of the guest's code translated, in MiB. By itself it keeps all, in huge pages, and takes
// 95 MiB beside the guest's RAM once a kernel has booted; so bounded it takes 54, for a twelfth more work.
const tcgCodeMiB = "24"

// nsmDevice is the virtio NSM device (virtio specification 1.4, device id 33; Linux drivers/misc/nsm.c:
// one queue).
const nsmDevice = "vhost-user-test-device,virtio-id=33,num_vqs=1,vq_size=64,chardev=nsm"

// arguments is QEMU's command line, without its first word, for cfg under accel (kvm or tcg) on machine (nitro or acpi).
// The guest starts paused (-S), so that no event is missed before QMP is connected.
func arguments(cfg *Config, accel Accel, machine MachineType) []string {
	mib := strconv.FormatUint(cfg.MemoryBytes/memoryUnit, 10)
	args := []string{
		"-name", "guest=" + escape(cfg.Name) + ",debug-threads=on",
		"-no-user-config", "-nodefaults", "-display", "none", "-no-reboot", "-S",
		"-M", machine.options(),
		"-bios", firmware,
		// Without this the legacy virtio-mmio is spoken and VIRTIO_F_VERSION_1 never negotiated.
		"-global", "virtio-mmio.force-legacy=false",
		"-object", "memory-backend-memfd,id=mem,share=on,size=" + mib + "M",
		"-m", mib,
		"-smp", strconv.Itoa(cfg.CPUs),
		"-chardev", fmt.Sprintf("socket,id=qmp,fd=%d,server=on,wait=off", qmpFD),
		"-mon", "chardev=qmp,mode=control",
		"-chardev", "stdio,id=console,signal=off",
		"-serial", "chardev:console",
		"-device", "i8042", // where reboot=k, which enclave images ask for, writes; without it that takes 0.6 s
		"-device", "pvpanic", // tells a panic at once, to kernels with pvpanic_mmio
		"-kernel", fmt.Sprintf("/dev/fd/%d", kernelFD),
	}
	if accel == TCG {
		args = append(args, "-accel", tcgOptions(cfg.SingleThread), "-cpu", "max")
	} else {
		args = append(args, "-accel", "kvm", "-cpu", "host")
	}
	// -append takes its word as it is: no commas are doubled here.
	args = append(args, "-append", kernelLine(cfg, accel, machine))
	if cfg.Initrd != nil {
		args = append(args, "-initrd", fmt.Sprintf("/dev/fd/%d", initrdFD))
	}
	if cfg.Sandbox != "" {
		args = append(args, "-sandbox", cfg.Sandbox)
	}
	return append(args, devices(cfg, machine)...)
}

// tcgOptions are TCG's. A thread for each vCPU makes one machine quicker; a single thread needs a seventh less work for two
// vCPUs, as it spares them all locking, which counts where machines share the processors.
func tcgOptions(single bool) string {
	options := "tcg,tb-size=" + tcgCodeMiB
	if single {
		options += ",thread=single"
	}
	return options
}

// virtioDevices are the guest's virtio devices: what each takes beside -device, and -device's value.
func virtioDevices(cfg *Config) []virtioDevice {
	var list []virtioDevice
	if cfg.VsockSocket != "" {
		list = append(list, virtioDevice{"socket,id=vsock,path=" + escape(cfg.VsockSocket), "vhost-user-vsock-device,chardev=vsock"})
	}
	if cfg.VhostVsockCID != 0 {
		list = append(list, virtioDevice{"", fmt.Sprintf("vhost-vsock-device,guest-cid=%d", cfg.VhostVsockCID)})
	}
	if cfg.NSMSocket != "" {
		list = append(list, virtioDevice{"socket,id=nsm,path=" + escape(cfg.NSMSocket), nsmDevice})
	}
	return list
}

type virtioDevice struct{ chardev, device string }

// devices are the options for the guest's virtio devices. On the nitro machine each has the slot that the command line
// says.
func devices(cfg *Config, machine MachineType) []string {
	var args []string
	for slot, d := range virtioDevices(cfg) {
		if d.chardev != "" {
			args = append(args, "-chardev", d.chardev)
		}
		if machine == Nitro {
			d.device += fmt.Sprintf(",bus=virtio-mmio-bus.%d", slot)
		}
		args = append(args, "-device", d.device)
	}
	return args
}

// escape doubles commas, as a value inside a QEMU option list wants it.
func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }
