package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/eif/pack"
	"github.com/nesim/nesim/qemu"
	"github.com/nesim/nesim/qemu/setup"
	"github.com/nesim/nesim/sim/daemon"
	"github.com/nesim/nesim/sim/instance"
)

const (
	mib = 1 << 20

	fewFiles, enoughFiles    = 256, 1024 // descriptors: an enclave takes about 30
	littleMemory, goodMemory = 256 * mib, 1024 * mib
	littleSpace              = 64 * mib

	daemonTimeout = 2 * time.Second
)

func examineQEMU(ctx context.Context) (setup.QEMU, finding) {
	q, err := setup.FindQEMU(ctx)
	if err != nil {
		return q, finding{"QEMU", fail, oneLine(err), ""} // the error says what to do
	}
	return q, finding{"QEMU", ok, fmt.Sprintf("%v, %s, from %s", q.Version, q.Path, q.From), ""}
}

// examineDevices looks for the devices that enclaves and a primary VM are given.
func examineDevices(ctx context.Context, q setup.QEMU) (findings []finding) {
	if q.Path == "" {
		return nil // reported already
	}
	has, err := q.Devices(ctx)
	if err != nil {
		return []finding{{"QEMU devices", fail, oneLine(err), "install a QEMU of " + setup.MinVersion.String() + " or later, or run make deps"}}
	}
	for _, device := range []struct {
		name, without string
		status        status
	}{
		{"vhost-user-vsock-device", "enclaves have no vsock", fail},
		{"vhost-user-test-device", "enclaves have no NSM", fail},
		{"vfio-user-pci", "nesim parent does not run", warn},
	} {
		f := finding{device.name, ok, "available", ""}
		if !has[device.name] {
			f = finding{device.name, device.status, "missing in this QEMU, so " + device.without, "use another QEMU: run make deps to fetch one, or set NESIM_QEMU"}
		}
		findings = append(findings, f)
	}
	return findings
}

// examineSandbox reports whether QEMU is confined while it runs enclaves.
func examineSandbox(q setup.QEMU) finding {
	if q.Sandbox == "" {
		return finding{"QEMU sandbox", warn, "this QEMU was built without seccomp, so it runs unconfined", "use another QEMU: make deps fetches one, NESIM_QEMU names one"}
	}
	return finding{"QEMU sandbox", ok, "seccomp: " + q.Sandbox, ""}
}

func examineKVM(q setup.QEMU) finding {
	accel, err := qemu.ParseAccel("")
	switch {
	case err != nil:
		return finding{"KVM", fail, oneLine(err), ""}
	case accel == qemu.TCG:
		return finding{"KVM", ok, "not used: NESIM_ACCEL is tcg", ""}
	}
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		bad := warn
		if accel == qemu.KVM {
			bad = fail
		}
		return finding{"KVM", bad, oneLine(err) + ": enclaves run with TCG, about ten times slower", "to use KVM, load kvm_intel or kvm_amd and join the group kvm"}
	}
	f.Close()
	kernel, _ := setup.FindKernel() // as the daemon does
	found, file, known := qemu.Probe{Binary: q.Path, Kernel: kernel.Image}.Remembered()
	again := "remove " + file + ", or start the daemon with --accel kvm, to try KVM again"
	when := found.When.Format(time.RFC3339)
	switch {
	case !known:
		return finding{"KVM", ok, "/dev/kvm opens; the first enclave shows whether it runs a kernel", ""}
	case found.Works:
		return finding{"KVM", ok, "/dev/kvm ran a kernel at " + when, ""}
	case accel == qemu.KVM:
		return finding{"KVM", fail, "NESIM_ACCEL is kvm, and KVM did not work at " + when + ": " + found.Why, "set NESIM_ACCEL to auto or tcg; " + again}
	}
	return finding{"KVM", warn, "/dev/kvm opens, but KVM did not work at " + when + " (" + found.Why + "), so TCG is used, which is slower", again}
}

func examineKernel() finding {
	kernel, err := setup.FindKernel()
	if err != nil {
		// An EIF has its own kernel: only building one needs this.
		return finding{"enclave kernel", warn, oneLine(err), "only build-enclave needs it"}
	}
	return finding{"enclave kernel", ok, fmt.Sprintf("%s, %s, from %s", kernel.Release, kernel.Image, kernel.From), ""}
}

func examineModules() finding {
	kernel, err := setup.FindKernel()
	if err != nil {
		return finding{"kernel modules", warn, "no enclave kernel", "see the line above"}
	}
	paths, err := kernel.LoadOrder(pack.Modules...)
	if err != nil {
		return finding{"kernel modules", warn, oneLine(err), "set NESIM_MODULES to the folder of the kernel's modules, or run make deps"}
	}
	if len(paths) == 0 {
		return finding{"kernel modules", ok, "none: the kernel must have everything built in", ""}
	}
	return finding{"kernel modules", ok, fmt.Sprintf("%d in %s", len(paths), kernel.Modules), ""}
}

// examineVsock looks at the vsock device that enclaves will have: ours needs nothing of the host.
func examineVsock() finding {
	wanted := envOr("NESIM_VSOCK", "user")
	switch wanted {
	case "user":
		return finding{"vsock", ok, "in user space: needs nothing from the host's kernel", ""}
	case "vhost":
	default:
		return finding{"vsock", fail, fmt.Sprintf("NESIM_VSOCK is %q", wanted), "set it to user or vhost, or unset it"}
	}
	f, err := os.OpenFile("/dev/vhost-vsock", os.O_RDWR, 0)
	if err != nil {
		return finding{"vsock", fail, oneLine(err), "load the module vhost_vsock and allow yourself access to the device, or set NESIM_VSOCK=user"}
	}
	f.Close()
	return finding{"vsock", ok, "/dev/vhost-vsock opens", ""}
}

func examineParent() finding {
	busybox, err := setup.FindBusybox()
	if err != nil {
		return finding{"primary VM", warn, oneLine(err), "only nesim parent needs it"}
	}
	return finding{"primary VM", ok, "busybox is " + busybox, ""}
}

func examineOpenFiles() finding {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return finding{"open files", warn, oneLine(err), ""}
	}
	// Go raises the soft limit to the hard one in every program.
	f := finding{"open files", ok, fmt.Sprintf("limit %d", limit.Max), ""}
	if limit.Max < enoughFiles {
		f.Status, f.Do = warn, fmt.Sprintf("raise it to %d for several enclaves: ulimit -Hn", enoughFiles)
	}
	if limit.Max < fewFiles {
		f.Status = fail
	}
	return f
}

func examineLockedMemory() finding {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return finding{"locked memory", warn, oneLine(err), ""}
	}
	amount := fmt.Sprintf("%d KiB", limit.Max>>10)
	if limit.Max == unix.RLIM_INFINITY {
		amount = "no limit"
	}
	return finding{"locked memory", ok, amount + "; enclaves' memory is not locked", ""}
}

func examineFolder() finding {
	dir := daemon.Dir()
	if err := daemon.CheckDir(dir); err != nil {
		return finding{"socket folder", fail, oneLine(err), ""} // the error says what to do
	}
	return finding{"socket folder", ok, dir, ""}
}

func examineDaemon(ctx context.Context) finding {
	ctx, cancel := context.WithTimeout(ctx, daemonTimeout)
	defer cancel()
	about, err := client().About(ctx)
	switch {
	case absent(err):
		return finding{"daemon", ok, "not running: the first command that needs it starts it", ""}
	case err != nil:
		return finding{"daemon", fail, "does not answer: " + oneLine(err), "read nesim.log in " + daemon.Dir() + ", and stop the daemon with nesim shutdown"}
	case about.Version != version():
		return finding{"daemon", warn, fmt.Sprintf("version %s, while this program is %s", about.Version, version()), "nesim shutdown stops it and its enclaves"}
	}
	return finding{"daemon", ok, fmt.Sprintf("process %d, QEMU %s, %s, CPU pool %s", about.PID, about.QEMU, about.Accel, about.CPUPool), ""}
}

func examineMemory() finding {
	host, err := instance.ReadHostMemory()
	f := finding{"memory", ok, fmt.Sprintf("%d MiB available of %d MiB", host.Available/mib, host.Total/mib), ""}
	switch {
	case err != nil:
		return finding{"memory", warn, oneLine(err), ""}
	case host.Available < littleMemory:
		f.Status, f.Do = fail, "free some: an enclave needs at least 64 MiB and four times its image"
	case host.Available < goodMemory:
		f.Status, f.Do = warn, "enough for a small enclave only"
	}
	return f
}

// examineSpace looks at the room in a folder. Enclaves' memory takes none of it; sockets and images under way do.
func examineSpace(name, dir string) finding {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return finding{name, warn, fmt.Sprintf("%s: %v", dir, err), ""}
	}
	free := fs.Bavail * uint64(fs.Bsize)
	f := finding{name, ok, fmt.Sprintf("%d MiB free in %s", free/mib, dir), ""}
	if free < littleSpace {
		f.Status, f.Do = warn, "free some space there"
	}
	return f
}
