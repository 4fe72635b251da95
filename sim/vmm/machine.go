package vmm

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/nesim/nesim/eif"
	"github.com/nesim/nesim/eif/inspect"
	"github.com/nesim/nesim/qemu"
	"github.com/nesim/nesim/sim/hypervisor"
)

// MachineTypes returns the machine types to try for a kernel, in turn, and why these, in a few words.
func MachineTypes(ctx context.Context, kernel io.ReaderAt, size int64) (types []qemu.MachineType, why string) {
	takes, err := inspect.TakesCmdlineDevices(ctx, kernel, size)
	switch {
	case err != nil:
		return []qemu.MachineType{qemu.Nitro, qemu.ACPI}, fmt.Sprintf("the kernel cannot be looked into: %v", err)
	case takes:
		return []qemu.MachineType{qemu.Nitro}, "the kernel takes devices from its command line"
	}
	return []qemu.MachineType{qemu.ACPI}, "the kernel takes no devices from its command line"
}

// machineTypes returns the machine types to try, in turn: the one that was demanded, else as the kernel wants it.
func (m *vm) machineTypes(ctx context.Context) ([]qemu.MachineType, error) {
	demanded := qemu.AutoMachine
	if m.vmm.cfg.Machine != nil {
		demanded = m.vmm.cfg.Machine(m.spec)
	}
	types, why := []qemu.MachineType{demanded}, "demanded"
	if demanded == qemu.AutoMachine || demanded == "" {
		info, err := m.spec.Kernel.Stat()
		if err != nil {
			return nil, err
		}
		types, why = MachineTypes(ctx, m.spec.Kernel, info.Size())
	}
	m.vmm.cfg.Log.Info("enclave's machine", "cid", m.spec.CID, "machine", types[0], "why", why)
	return types, ctx.Err()
}

// checkKernel says why a kernel cannot be started, before QEMU would, in its own way, or would not.
func checkKernel(kernel, initrd *os.File, memory uint64) error {
	info, err := kernel.Stat()
	if err != nil {
		return err
	}
	k := inspect.IdentifyKernel(kernel, info.Size())
	if err := inspect.CheckKernel(k, eif.ArchX86_64); err != nil {
		return fmt.Errorf("%w: %w", hypervisor.ErrUnbootable, err)
	}
	var ramdisks int64
	if initrd != nil {
		if info, err = initrd.Stat(); err != nil {
			return err
		}
		ramdisks = info.Size()
	}
	if err := checkLayout(k, uint64(ramdisks), memory); err != nil {
		return fmt.Errorf("%w: %w", hypervisor.ErrUnbootable, err)
	}
	return nil
}

const (
	mib      = 1 << 20
	pageSize = 4 << 10
)

// checkLayout says why a kernel and its ramdisks, in bytes, do not both find room in an enclave's memory: the kernel at its
// start, the ramdisks at the end of the memory below 4 GiB, or as high as the kernel takes them.
func checkLayout(k inspect.Kernel, ramdisks, memory uint64) error {
	low := qemu.LowMemory(memory)
	if k.End > low {
		return fmt.Errorf("the kernel takes %d MiB of memory as it starts, and the enclave has %d MiB: give it more", roundUp(k.End), low/mib)
	}
	top := low
	if k.RamdiskMax != 0 {
		top = min(top, k.RamdiskMax+1)
	}
	if ramdisks == 0 {
		return nil
	}
	if ramdisks >= top || (top-1-ramdisks)/pageSize*pageSize < k.End {
		return fmt.Errorf("the image's ramdisks, of %d MiB, do not fit into the memory between the kernel, up to %d MiB, and the end of what "+
			"it takes ramdisks in, %d MiB: give the enclave more memory, of which %d MiB count, or make the image smaller",
			roundUp(ramdisks), roundUp(k.End), top/mib, qemu.MaxLowMemory/mib)
	}
	return nil
}

func roundUp(bytes uint64) uint64 { return (bytes + mib - 1) / mib }
