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
	var raw *bool
	cmd := &cobra.Command{
		Use:   "parent [--exec COMMAND] [--root DIR] [--copy FILE[:PATH]]...",
		Short: "Boot a primary VM with the Linux NE driver",
		Long: "Boot a primary VM, the parent of enclaves, with the Linux kernel's NE driver on the instance's NE PCI device,\n" +
			"and run a command in it, or a shell. /dev/nitro_enclaves, its CPU pool and its huge pages are ready; the VM\n" +
			"has CID 3. nesim exits with the exit code of the command, and the VM is then removed.\n\n" +
			"With --verbose the messages of the VM's kernel go to standard error.",
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
			if verbose(cmd) {
				cfg.KernelLog = tame(cmd.ErrOrStderr(), *raw)
			}
			code, err := runParent(cmd, cfg, *raw)
			if err == nil && code != 0 {
				os.Exit(code)
			}
			return err
		},
	}
	raw = rawFlag(cmd)
	flags := cmd.Flags()
	flags.StringVar(&cfg.Command, "exec", "", "command to run with sh -c (default: an interactive shell)")
	flags.StringVar(&cfg.Root, "root", "", "folder with the root directory of the VM, to which nesim adds /.nesim")
	flags.StringArrayVar(&copies, "copy", nil, "file or folder to copy to PATH, or to /root; can be repeated")
	flags.BoolVarP(&cfg.Terminal, "tty", "t", false, "give the command a terminal; a shell gets one if nesim has one")
	flags.IntVar(&cfg.CPUs, "cpus", 4, "CPUs of the VM")
	flags.IntVar(&cfg.ThreadsPerCore, "threads-per-core", 2, "threads of each CPU core, 1 or 2")
	flags.StringVar(&cfg.CPUPool, "ne-cpus", "", "CPU pool for enclaves, as a CPU list such as 2-3 (default: all but the first core)")
	flags.IntVar(&cfg.MemoryMiB, "memory", 2048, "memory of the VM in MiB")
	flags.IntVar(&cfg.HugeMiB, "hugepages", 0, "MiB of the VM's memory to reserve as 2 MiB huge pages (default: half of it)")
	flags.IntVar(&cfg.HugeGiB, "gigantic-pages", 0, "GiB of the VM's memory to reserve as 1 GiB huge pages")
	flags.StringVar(&accel, "accel", "", "accelerator: auto, kvm or tcg (default: $NESIM_ACCEL, else auto)")
	return cmd
}

// runParent finds the parts of the VM, starts the daemon if none runs, and runs the VM on this terminal.
func runParent(cmd *cobra.Command, cfg primary.Config, raw bool) (code int, err error) {
	ctx := cmd.Context()
	if cfg.QEMU, err = setup.FindQEMU(ctx); err != nil {
		return 0, err
	}
	if cfg.Kernel, err = setup.FindDebianKernel(); err != nil {
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
	cfg.Stdin, cfg.Stdout, cfg.Stderr = os.Stdin, cmd.OutOrStdout(), os.Stderr
	cfg.Say = func(line string) { fmt.Fprintln(os.Stderr, printable(line)) }
	restore := terminal(&cfg)
	defer restore()
	if !cfg.Terminal { // a terminal in the VM is there to steer this one
		cfg.Stdout, cfg.Stderr = tame(cfg.Stdout, raw), tame(cfg.Stderr, raw)
	}
	return primary.Run(ctx, cfg)
}

// attach joins the VM to the daemon's instance.
func attach(ctx context.Context, c *daemon.Client, cfg *primary.Config) error {
	about, err := c.About(ctx)
	if err != nil {
		return err
	}
	cfg.PCISocket, cfg.Vsock, cfg.InstanceID = about.PCISocket, c.AttachParent, about.InstanceID
	return nil
}
