package qemu

import (
	"debug/elf"
	"fmt"
	"io"
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

// arguments is QEMU's command line, without its first word, for cfg under accel (kvm or tcg).
// The guest starts paused (-S), so that no event is missed before QMP is connected.
func arguments(cfg *Config, accel Accel) []string {
	mib := strconv.FormatUint(cfg.MemoryBytes/memoryUnit, 10)
	args := []string{
		"-name", "guest=" + escape(cfg.Name) + ",debug-threads=on",
		"-no-user-config", "-nodefaults", "-display", "none", "-no-reboot", "-S",
		// All else stays at its default: rtc=off makes a kernel wait a second for the clock that is not
		// there, pic=off with pit=off hangs it, acpi=off hides the devices from distribution kernels.
		"-M", "microvm,memory-backend=mem",
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
	cmdline := cfg.Cmdline
	if accel == TCG {
		args = append(args, "-accel", tcgOptions(cfg.SingleThread), "-cpu", "max")
		cmdline = strings.TrimSpace(cmdline + " " + TCGCmdline())
	} else {
		args = append(args, "-accel", "kvm", "-cpu", "host")
	}
	// -append takes its word as it is: no commas are doubled here.
	args = append(args, "-append", cmdline)
	if isELF(cfg.Kernel) {
		// QEMU lays the ramdisk of an ELF kernel over the ACPI tables of microvm's usual firmware.
		args = append(args, "-bios", "qboot.rom")
	}
	if cfg.Initrd != nil {
		args = append(args, "-initrd", fmt.Sprintf("/dev/fd/%d", initrdFD))
	}
	return append(args, devices(cfg)...)
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

// isELF tells a vmlinux from a bzImage.
func isELF(kernel io.ReaderAt) bool {
	magic := make([]byte, len(elf.ELFMAG))
	_, err := kernel.ReadAt(magic, 0)
	return err == nil && string(magic) == elf.ELFMAG
}

// devices are the guest's virtio devices.
func devices(cfg *Config) []string {
	var args []string
	if cfg.VsockSocket != "" {
		args = append(args,
			"-chardev", "socket,id=vsock,path="+escape(cfg.VsockSocket),
			"-device", "vhost-user-vsock-device,chardev=vsock")
	}
	if cfg.VhostVsockCID != 0 {
		args = append(args, "-device", fmt.Sprintf("vhost-vsock-device,guest-cid=%d", cfg.VhostVsockCID))
	}
	if cfg.NSMSocket != "" {
		args = append(args,
			"-chardev", "socket,id=nsm,path="+escape(cfg.NSMSocket),
			"-device", nsmDevice)
	}
	return args
}

// escape doubles commas, as a value inside a QEMU option list wants it.
func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }
