package main

import (
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/nesim/nesim/sim/daemon"
	"github.com/nesim/nesim/sim/instance"
)

// envOr gives the value of an environment variable, or other where it has none.
func envOr(name, other string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return other
}

func serve() *cobra.Command {
	var cfg instance.Config
	var readClock func() error
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the simulated instance in the foreground; the other commands start it by themselves",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := readClock(); err != nil {
				return err
			}
			return daemon.Run(cmd.Context(), daemon.Config{
				Dir:      daemon.Dir(),
				Version:  version(),
				Instance: cfg,
				Log:      slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil)),
			})
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&cfg.CPUs, "cpus", 16, "CPUs of the simulated parent instance")
	flags.IntVar(&cfg.ThreadsPerCore, "threads-per-core", 2, "threads of each of its cores")
	flags.StringVar(&cfg.CPUPool, "ne-cpus", "", "CPU list that enclaves are given from (default: all but the first core)")
	flags.IntVar(&cfg.Slots, "max-enclaves", 4, "enclaves that can run at a time")
	flags.StringVar(&cfg.Accel, "accel", "", "auto, kvm or tcg (default: $NESIM_ACCEL, else auto)")
	flags.StringVar(&cfg.Vsock, "vsock", envOr("NESIM_VSOCK", "user"), "user: the vsock device in user space; vhost: the host kernel's")
	flags.BoolVar(&cfg.NSM.Off, "no-nsm", false, "give enclaves no Nitro Secure Module")
	readClock = nsmFlags(flags, &cfg.NSM, &cfg.ID)
	rootFlags(cmd, &cfg.NSM)
	return cmd
}
