package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nesim/nesim/sim/instance"
)

func runEnclave() *cobra.Command {
	var spec instance.RunSpec
	var attach bool
	var config string
	var raw *bool
	cmd := &cobra.Command{
		Use:   "run-enclave ((FILE | --eif-path FILE) --memory SIZE (--cpu-count N | --cpu-ids ID...) | --config FILE)",
		Short: "Run an enclave and wait for its heartbeat",
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if config != "" {
				noNSM, machine := spec.NoNSM, spec.Machine // which nitro-cli's file does not know
				if spec, err = readRunConfig(config, &attach); err != nil {
					return err
				}
				spec.NoNSM, spec.Machine = noNSM, machine
			}
			if err := checkCores(cmd.Context(), spec); err != nil {
				return err
			}
			if spec.CID == 0 && cmd.Flags().Changed("enclave-cid") {
				fmt.Fprintln(cmd.ErrOrStderr(), "note: with --enclave-cid 0 the hypervisor chooses a CID")
			}
			if spec.EIFPath, err = filepath.Abs(spec.EIFPath); err != nil {
				return err
			}
			spec.Debug = spec.Debug || attach
			if err := spec.Check(); err != nil {
				return err
			}
			return run(cmd, spec, attach, *raw)
		},
	}
	raw = rawFlag(cmd)
	flags := cmd.Flags()
	flags.StringVar(&spec.EIFPath, "eif-path", "", "Enclave Image File to run")
	flags.Var((*cpuCount)(&spec.CPUCount), "cpu-count", "number of CPUs, a multiple of the threads per core (2 by default)")
	flags.Var((*cpuIDs)(&spec.CPUIDs), "cpu-ids", "IDs of the CPUs, as in --cpu-ids 2 3 or --cpu-ids 2,3")
	flags.Var((*memoryMiB)(&spec.MemoryMiB), "memory", "memory in MiB, or with a unit: 512, 512M, 512MB and 512MiB mean the same, 2G is 2048; rounded up to huge pages of 2 MiB")
	flags.Uint64Var(&spec.CID, "enclave-cid", 0, "CID of the enclave, from 4 to 4294967294 (default: the hypervisor chooses)")
	flags.BoolVar(&spec.Debug, "debug-mode", false, "make the console readable; PCR0, 1, 2 and 8 are zero in attestation documents")
	flags.BoolVar(&attach, "attach-console", false, "print the console until the enclave ends, then exit with the code of its workload: 128 + N if signal N killed it, 1 if the enclave failed; implies --debug-mode")
	flags.StringVar(&spec.Name, "enclave-name", "", "name of the enclave (default: the name of the file without .eif)")
	flags.BoolVar(&spec.NoNSM, "no-nsm", false, "run without a Nitro Secure Module")
	flags.StringVar(&spec.Machine, "machine", "", machineUsage+" (default: the daemon's)")
	flags.StringVar(&config, "config", "", "JSON file with the settings eif_path, memory_mib, cpu_count, cpu_ids, enclave_cid, enclave_name, debug_mode, attach_console; replaces the other flags")
	_ = cmd.MarkFlagFilename("eif-path", "eif")
	_ = cmd.MarkFlagFilename("config", "json")
	completeMachines(cmd)
	fileOperand(cmd, "config")
	before(cmd, func() error { return checkRunFlags(cmd) })
	return cmd
}

// checkRunFlags requires either a configuration or the flags that replace it.
func checkRunFlags(cmd *cobra.Command) error {
	if set := given(cmd, []string{"cpu-ids", "cpu-count", "memory", "eif-path", "enclave-cid", "debug-mode", "enclave-name"}); cmd.Flags().Changed("config") {
		if len(set) > 0 {
			return conflicting(cmd, "config", set[0])
		}
		return nil
	}
	for _, name := range []string{"eif-path", "memory"} {
		if !cmd.Flags().Changed(name) {
			return missing(cmd, name)
		}
	}
	switch len(given(cmd, []string{"cpu-count", "cpu-ids"})) {
	case 0:
		return missing(cmd, "cpu-count", "cpu-ids")
	case 2:
		return conflicting(cmd, "cpu-count", "cpu-ids")
	}
	return nil
}

// checkCores refuses, before a daemon is started, a count of CPUs that no core of the instance can give. What the pool has
// is known to the daemon alone.
func checkCores(ctx context.Context, spec instance.RunSpec) error {
	threads := instance.ThreadsPerCore
	if about, err := client().About(ctx); err == nil {
		threads = about.ThreadsPerCore
	}
	if len(spec.CPUIDs) > 0 || spec.CPUCount >= threads {
		return nil
	}
	return instance.CheckCPUCount(spec.CPUCount, threads)
}

// run runs an enclave, and prints its console if attach is set.
func run(cmd *cobra.Command, spec instance.RunSpec, attach, raw bool) error {
	c, err := runningClient(cmd.Context())
	if err != nil {
		return err
	}
	info, err := c.Run(cmd.Context(), spec, func(step string) { fmt.Fprintln(cmd.ErrOrStderr(), printable(step)) })
	if err != nil {
		return err
	}
	err = show(cmd, info, func(p *printer) {
		p.fields([2]string{"name", info.Name}, [2]string{"ID", info.ID}, [2]string{"CID", fmt.Sprint(info.CID)},
			[2]string{"CPUs", strings.Trim(fmt.Sprint(info.CPUIDs), "[]")}, [2]string{"memory", fmt.Sprintf("%d MiB", info.MemoryMiB)})
	})
	if err != nil || !attach {
		return err
	}
	connecting(cmd, info.CID)
	ending, err := follow(cmd, c, instance.Ref{ID: info.ID}, raw)
	if err != nil {
		return err
	}
	return endingError(ending)
}
