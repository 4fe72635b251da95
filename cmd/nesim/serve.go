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

// envOr returns the value of an environment variable, or other if it is unset or empty.
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
		Short: "Run the daemon in the foreground",
		Long: "Run the daemon, which simulates the instance, in the foreground until ctrl-C. The other commands start it in the\n" +
			"background, with the defaults, if it does not run.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := readClock(); err != nil {
				return err
			}
			log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: logLevel(cmd)}))
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
	flags.IntVar(&cfg.CPUs, "cpus", 16, "CPUs of the simulated instance")
	flags.IntVar(&cfg.ThreadsPerCore, "threads-per-core", 2, "threads of each CPU core")
	flags.StringVar(&cfg.CPUPool, "ne-cpus", "", "CPU pool for enclaves, as a CPU list such as 2-7 (default: all but the first core)")
	flags.IntVar(&cfg.Slots, "max-enclaves", 4, "number of enclaves that can run at the same time")
	flags.StringVar(&cfg.Accel, "accel", "", "accelerator: auto, kvm or tcg (default: $NESIM_ACCEL, else auto)")
	flags.StringVar(&cfg.Machine, "machine", "", machineUsage+" (default: $NESIM_MACHINE, else auto)")
	completeMachines(cmd)
	flags.StringVar(&cfg.Vsock, "vsock", envOr("NESIM_VSOCK", "user"), "vsock device: user for the one in user space, vhost for the host kernel's")
	flags.BoolVar(&cfg.NSM.Off, "no-nsm", false, "run enclaves without a Nitro Secure Module")
	flags.StringVar(&recording, "record", "", "file to record the traffic between drivers and the NE PCI device in, for nesim scenario replay")
	readClock = nsmFlags(flags, &cfg.NSM, &cfg.ID)
	rootFlags(cmd, &cfg.NSM)
	return cmd
}

// logLevel is what --quiet and --verbose mean for the daemon's log.
func logLevel(cmd *cobra.Command) slog.Level {
	switch {
	case quiet(cmd):
		return slog.LevelWarn
	case verbose(cmd):
		return slog.LevelDebug
	}
	return slog.LevelInfo
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
