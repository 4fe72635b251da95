package main

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nesim/nesim/sim/daemon"
)

// root is the command line: each command stands in the file of its name.
func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "nesim",
		Short:         "Simulate AWS Nitro Enclaves without Nitro hardware",
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cmd.AddCommand(
		runEnclave(), describeEnclaves(), console(), terminateEnclave(), waitEnclave(),
		buildEnclave(), describeEIF(),
		vsockCommand(), serve(), shutdown(),
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

// printJSON writes a value as nitro-cli does, with an indent of two spaces.
func printJSON(w io.Writer, value any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(value)
}

// oneLine puts an error that has several lines, as joined ones have, on one.
func oneLine(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}
