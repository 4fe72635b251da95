package main

import (
	"context"
	"errors"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/nesim/nesim/sim/daemon"
)

// root is the command line: each command stands in the file of its name.
func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "nesim",
		Short: "Simulate AWS Nitro Enclaves without Nitro hardware",
		Long: "Simulate AWS Nitro Enclaves without Nitro hardware, by nitro-cli's commands.\n\n" +
			"On a terminal the commands print tables; elsewhere, and with --json, what nitro-cli prints.\n" +
			"A command that fails tells why in one line, with nitro-cli's code for it, which nesim explain\n" +
			"explains; its exit code is the code's number, 2 for a bad command line, 130 after ctrl-C.",
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error { // help where it does not end in a pipe, as of nitro-cli
			cmd.SetOut(cmd.ErrOrStderr())
			return errors.Join(cmd.Help(), usageError{errors.New("a command is missing")})
		},
	}
	cmd.PersistentFlags().Bool("json", false, "print JSON on a terminal too")
	cmd.AddCommand(
		runEnclave(), describeEnclaves(), console(), terminateEnclave(), waitEnclave(),
		buildEnclave(), describeEIF(), eifCommand(), signEIF(), pcr(), explain(),
		attestCommand(), kmsCommand(), parentCommand(), vsockCommand(), scenario(), serve(), shutdown(), doctor(), man(),
	)
	return cmd
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "development"
}

// client returns a client for the user's daemon, running or not.
func client() *daemon.Client { return daemon.NewClient(daemon.Dir()) }

// runningClient returns a client for the user's daemon, which it starts where none runs.
func runningClient(ctx context.Context) (*daemon.Client, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return daemon.Ensure(ctx, daemon.Dir(), self, "serve")
}
