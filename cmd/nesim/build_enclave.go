package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/nesim/nesim/eif"
	"github.com/nesim/nesim/eif/pack"
	"github.com/nesim/nesim/qemu/setup"
)

// built is what nitro-cli's build-enclave prints.
type built struct {
	Measurements eif.Measurements `json:"Measurements"`
}

func buildEnclave() *cobra.Command {
	var rootfs string
	var spec pack.Spec
	cmd := &cobra.Command{
		Use:   "build-enclave --rootfs DIR --output-file FILE",
		Short: "Pack a folder with a kernel and an init into an Enclave Image File",
		Long: "Pack a folder into an Enclave Image File, with the enclave kernel and nesim's init.\n\n" +
			"The folder is the enclave's root directory, but for two files at its top: cmd holds the\n" +
			"workload's arguments, one a line, and env its environment, one KEY=VALUE a line.\n" +
			"The same folder gives the same file, to the byte.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if spec.Application, err = pack.FromFolder(cmd.Context(), rootfs); err != nil {
				return err
			}
			kernel, err := setup.FindKernel()
			if err != nil {
				return err
			}
			spec.Kernel, spec.Metadata.Build.KernelVersion = kernel.Image, kernel.Release
			if spec.Modules, err = kernel.LoadOrder(pack.Modules...); err != nil {
				return err
			}
			fmt.Fprintln(cmd.ErrOrStderr(), "Start building the Enclave Image...")
			measurements, err := pack.Build(cmd.Context(), spec)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.ErrOrStderr(), "Enclave Image successfully created.")
			return printJSON(cmd.OutOrStdout(), built{measurements})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&rootfs, "rootfs", "", "the folder to pack")
	flags.StringVar(&spec.Output, "output-file", "", "where the Enclave Image File goes")
	flags.StringVar(&spec.Cmdline, "cmdline", "", "the kernel's command line, in place of the measured default")
	flags.StringVar(&spec.Metadata.ImageName, "name", "", "name of the image, for its metadata")
	flags.StringVar(&spec.Metadata.ImageVersion, "version", "", "version of the image, for its metadata")
	_ = cmd.MarkFlagRequired("rootfs")
	_ = cmd.MarkFlagRequired("output-file")
	return cmd
}
