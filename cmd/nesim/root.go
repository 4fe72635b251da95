package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"github.com/nesim/nesim/sim/daemon"
)

// root is the command line: each command stands in the file of its name.
func root() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "nesim",
		Short: "Simulate AWS Nitro Enclaves without Nitro hardware",
		Long: "Simulate AWS Nitro Enclaves without Nitro hardware, with the commands of nitro-cli.\n\n" +
			"On a terminal the commands print tables; elsewhere, and with --json, they print nitro-cli's JSON.\n" +
			"A command that fails prints one line with nitro-cli's error code, which nesim explain explains. The exit\n" +
			"code is the number of the error code, 2 for a bad command line, and 130 after ctrl-C.",
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	})
	cmd.SetVersionTemplate(readBuild().String() + "\n")
	verbosityFlags(cmd)
	cmd.AddCommand(
		runEnclave(), describeEnclaves(), console(), terminateEnclave(), waitEnclave(),
		buildEnclave(), describeEIF(), eifCommand(), signEIF(), pcr(), explain(),
		attestCommand(), kmsCommand(), parentCommand(), vsockCommand(), scenario(), serve(), shutdown(), doctor(), man(), versionCommand(),
	)
	cmd.InitDefaultHelpCmd()
	cmd.InitDefaultCompletionCmd()
	finish(cmd)
	return cmd
}

// finish gives every command what all have: an error with the usage for surplus or missing arguments, --json, examples and
// completion.
func finish(cmd *cobra.Command) {
	for _, c := range cmd.Commands() {
		finish(c)
	}
	if c := cmd.Name(); c == "help" {
		cmd.Short = "Print the help of a command"
	}
	checkArgs(cmd)
	addJSON(cmd)
	addExamples(cmd)
	addCompletions(cmd)
}

// client returns a client for the user's daemon, running or not.
func client() *daemon.Client { return daemon.NewClient(daemon.Dir()) }

// runningClient returns a client for the user's daemon, starting one if none runs.
func runningClient(ctx context.Context) (*daemon.Client, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return daemon.Ensure(ctx, daemon.Dir(), self, "serve")
}
