package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/nesim/nesim/sim/instance"
)

func runEnclave() *cobra.Command {
	var spec instance.RunSpec
	var attach bool
	cmd := &cobra.Command{
		Use:   "run-enclave --eif-path FILE --cpu-count N --memory MIB",
		Short: "Start an enclave and wait for its heartbeat",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := filepath.Abs(spec.EIFPath)
			if err != nil {
				return err
			}
			spec.EIFPath = path
			spec.Debug = spec.Debug || attach
			c, err := runningClient(cmd.Context())
			if err != nil {
				return err
			}
			info, err := c.Run(cmd.Context(), spec, func(step string) { fmt.Fprintln(cmd.ErrOrStderr(), step) })
			if err != nil {
				return err
			}
			if err := printJSON(cmd.OutOrStdout(), info); err != nil || !attach {
				return err
			}
			return follow(cmd, c, info.ID)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&spec.EIFPath, "eif-path", "", "the Enclave Image File to run")
	flags.IntVar(&spec.CPUCount, "cpu-count", 0, "number of CPUs for the enclave, in full cores")
	flags.Uint64Var(&spec.MemoryMiB, "memory", 0, "memory for the enclave, in MiB; rounded up to huge pages")
	flags.Uint64Var(&spec.CID, "enclave-cid", 0, "the enclave's CID (default: the hypervisor's choice)")
	flags.BoolVar(&spec.Debug, "debug-mode", false, "make the enclave's console readable; its PCRs are then zero in attestation documents")
	flags.BoolVar(&attach, "attach-console", false, "show the console once the enclave runs (implies --debug-mode)")
	flags.StringVar(&spec.Name, "enclave-name", "", "the enclave's name (default: the EIF's, without its ending)")
	for _, name := range []string{"eif-path", "memory", "cpu-count"} {
		_ = cmd.MarkFlagRequired(name)
	}
	return cmd
}
