package main

import (
	"errors"
	"log/slog"
	"os"
	"sync"

	"github.com/spf13/cobra"

	"github.com/nesim/nesim/internal/files"
	"github.com/nesim/nesim/pcidev"
	"github.com/nesim/nesim/scenarios/record"
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
	var recording string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the simulated instance in the foreground; the other commands start it by themselves",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := readClock(); err != nil {
				return err
			}
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			between, done, err := recordIn(recording, log)
			if err != nil {
				return err
			}
			cfg.Between = between
			err = daemon.Run(cmd.Context(), daemon.Config{Dir: daemon.Dir(), Version: version(), Instance: cfg, Log: log})
			return errors.Join(err, done(err))
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
	flags.StringVar(&recording, "record", "", "record in this file what drivers and the NE PCI device say to each other: see nesim scenario replay")
	readClock = nsmFlags(flags, &cfg.NSM, &cfg.ID)
	rootFlags(cmd, &cfg.NSM)
	return cmd
}

// recordIn records in a file what passes between drivers and the device, until done is called with the daemon's error.
// A daemon that could not start leaves the recording before. Without a path nothing is recorded.
func recordIn(path string, log *slog.Logger) (between func(pcidev.Hypervisor) pcidev.Hypervisor, done func(error) error, err error) {
	if path == "" {
		return nil, func(error) error { return nil }, nil
	}
	out, err := files.NewLive(path, 0o600)
	if err != nil {
		return nil, nil, err
	}
	var once sync.Once // what fails once fails for every entry
	failed := func(err error) {
		once.Do(func() { log.Warn("the recording is not whole", "file", path, "error", err) })
	}
	done = func(err error) error {
		if err != nil {
			out.Discard()
			return nil
		}
		return out.Close()
	}
	return func(hv pcidev.Hypervisor) pcidev.Hypervisor { return record.Hypervisor(hv, out, failed) }, done, nil
}
