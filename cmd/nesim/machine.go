package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nesim/nesim/qemu"
	"github.com/nesim/nesim/sim/vmm"
)

// machineUsage describes a flag whose value is a machine type.
const machineUsage = "machine type: nitro as on AWS, acpi for kernels that need ACPI, or auto, by the image's kernel"

// completeMachines offers the machine types to the shell.
func completeMachines(cmd *cobra.Command) {
	_ = cmd.RegisterFlagCompletionFunc("machine", cobra.FixedCompletions(
		[]string{string(qemu.AutoMachine), string(qemu.Nitro), string(qemu.ACPI)}, cobra.ShellCompDirectiveNoFileComp))
}

// machine is the machine type that an image gets by its kernel.
type machine struct {
	Types  []qemu.MachineType // to be tried in turn
	Reason string
}

func (m machine) String() string {
	var names []string
	for _, t := range m.Types {
		names = append(names, string(t))
	}
	return strings.Join(names, ", else ") + ": " + m.Reason
}

// machineOf finds the machine type of an image's file.
func machineOf(ctx context.Context, path string) (machine, error) {
	image, closeImage, err := openImage(path)
	if err != nil {
		return machine{}, err
	}
	defer closeImage()
	kernel := image.Kernel()
	types, why := vmm.MachineTypes(ctx, kernel, kernel.Size())
	return machine{types, why}, ctx.Err()
}
