package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/nesim/nesim/sim/daemon"
	"github.com/nesim/nesim/sim/instance"
)

func describeEnclaves() *cobra.Command {
	return &cobra.Command{
		Use:   "describe-enclaves",
		Short: "List the running enclaves",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := client().Enclaves(cmd.Context())
			if absent := (*daemon.NotRunningError)(nil); errors.As(err, &absent) {
				list, err = []instance.Description{}, nil // no daemon, so no enclave
			}
			if err != nil {
				return err
			}
			return printJSON(cmd.OutOrStdout(), list)
		},
	}
}
