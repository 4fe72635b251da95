package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/nesim/nesim/qemu"
	"github.com/nesim/nesim/qemu/setup"
	"github.com/nesim/nesim/sim/daemon"
	"github.com/nesim/nesim/sim/primary"
)

func parentCommand() *cobra.Command {
	var cfg primary.Config
	var copies []string
	var accel string
	var verbose bool
	cmd := &cobra.Command{
		Use:   "parent [--exec COMMAND] [--root DIR] [--copy FILE[:PATH]]...",
		Short: "Boot a primary VM, with the Linux kernel's own NE driver, and run a command in it",
		Long: "Boot a primary VM, the parent of enclaves, with the Linux kernel's own NE driver on the instance's NE PCI\n" +
			"device, and run a command in it, or a shell. /dev/nitro_enclaves, its CPU pool and its huge pages are\n" +
			"ready; the VM is CID 3. The command's exit code is that of nesim; all else of the VM is gone then.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if cfg.Accel, err = qemu.ParseAccel(accel); err != nil {
				return err
			}
			for _, arg := range copies {
				copied, err := primary.ParseCopy(arg)
				if err != nil {
					return fmt.Errorf("--copy %w", err)
				}
				cfg.Copies = append(cfg.Copies, copied)
			}
			if verbose {
				cfg.KernelLog = cmd.ErrOrStderr()
			}
			code, err := runParent(cmd, cfg)
			if err == nil && code != 0 {
				os.Exit(code)
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&cfg.Command, "exec", "", "the command, for sh -c (default: a shell)")
	flags.StringVar(&cfg.Root, "root", "", "a folder: the VM's root directory, under which nesim puts its own /.nesim")
	flags.StringArrayVar(&copies, "copy", nil, "a file or folder for the VM, at PATH or in /root")
	flags.BoolVarP(&cfg.Terminal, "tty", "t", false, "give the command a terminal (the shell has one where nesim has)")
	flags.IntVar(&cfg.CPUs, "cpus", 4, "CPUs of the VM")
	flags.IntVar(&cfg.ThreadsPerCore, "threads-per-core", 2, "threads of each of its cores, 1 or 2")
	flags.StringVar(&cfg.CPUPool, "ne-cpus", "", "CPU list that enclaves are given from (default: all but the first core)")
	flags.IntVar(&cfg.MemoryMiB, "memory", 2048, "memory of the VM, in MiB")
	flags.IntVar(&cfg.HugeMiB, "hugepages", 0, "of it, MiB set aside in huge pages of 2 MiB (default: half)")
	flags.IntVar(&cfg.HugeGiB, "gigantic-pages", 0, "and in huge pages of 1 GiB")
	flags.StringVar(&accel, "accel", "", "auto, kvm or tcg (default: $NESIM_ACCEL, else auto)")
	flags.BoolVarP(&verbose, "verbose", "v", false, "show the kernel's messages on standard error")
	return cmd
}

// runParent finds what the VM is made of, starts the daemon where none runs, and runs the VM on this terminal.
func runParent(cmd *cobra.Command, cfg primary.Config) (code int, err error) {
	ctx := cmd.Context()
	if cfg.QEMU, err = setup.FindQEMU(ctx); err != nil {
		return 0, err
	}
	if cfg.Kernel, err = setup.FindKernel(); err != nil {
		return 0, err
	}
	if cfg.Busybox, err = setup.FindBusybox(); err != nil {
		return 0, err
	}
	c, err := runningClient(ctx)
	if err != nil {
		return 0, err
	}
	if err := attach(ctx, c, &cfg); err != nil {
		return 0, err
	}
	cfg.Stdin, cfg.Stdout, cfg.Stderr = os.Stdin, cmd.OutOrStdout(), cmd.ErrOrStderr()
	restore := terminal(&cfg)
	defer restore()
	return primary.Run(ctx, cfg)
}

// attach joins the VM to the daemon's instance.
func attach(ctx context.Context, c *daemon.Client, cfg *primary.Config) error {
	about, err := c.About(ctx)
	if err != nil {
		return err
	}
	cfg.PCISocket, cfg.Vsock = about.PCISocket, c.AttachParent
	return nil
}
