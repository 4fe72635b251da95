package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/nesim/nesim/sim/daemon"
)

// verbosityFlags adds --quiet and --verbose, which mean the same for every command.
func verbosityFlags(cmd *cobra.Command) {
	cmd.PersistentFlags().BoolP("quiet", "q", false, "print results and errors only: no progress, notes or warnings on standard error")
	cmd.PersistentFlags().BoolP("verbose", "v", false, "print more on standard error: the version, the daemon, and the time taken")
}

func quiet(cmd *cobra.Command) bool {
	set, _ := cmd.Flags().GetBool("quiet")
	return set
}

func verbose(cmd *cobra.Command) bool {
	set, _ := cmd.Flags().GetBool("verbose")
	return set
}

// applyVerbosity carries out the two flags. Commands write progress, notes and warnings to cmd.ErrOrStderr, which --quiet
// discards; errors, and what a program run for the user writes, go to os.Stderr itself. The returned function ends what
// --verbose prints.
func applyVerbosity(cmd *cobra.Command) (done func(), err error) {
	switch {
	case quiet(cmd) && verbose(cmd):
		return func() {}, conflicting(cmd, "quiet", "verbose")
	case quiet(cmd):
		cmd.SetErr(io.Discard)
	case verbose(cmd):
		began, w := time.Now(), cmd.ErrOrStderr()
		fmt.Fprintf(w, "%v\n%s\n", readBuild(), describeDaemon(cmd.Context()))
		return func() {
			fmt.Fprintf(w, "%s took %v\n", cmd.CommandPath(), time.Since(began).Round(time.Millisecond))
		}, nil
	}
	return func() {}, nil
}

// describeDaemon describes the daemon of the user's folder in a line.
func describeDaemon(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, daemonTimeout)
	defer cancel()
	about, err := client().About(ctx)
	switch {
	case absent(err):
		return "daemon: not running in " + daemon.Dir()
	case err != nil:
		return "daemon: " + oneLine(err)
	}
	return fmt.Sprintf("daemon: process %d, version %s, QEMU %s, accelerator %s, CPU pool %s, in %s",
		about.PID, about.Version, about.QEMU, about.Accel, about.CPUPool, about.Dir)
}
