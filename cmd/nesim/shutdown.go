package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/nesim/nesim/sim/daemon"
)

func shutdown() *cobra.Command {
	return &cobra.Command{
		Use:   "shutdown",
		Short: "End the daemon and every enclave",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := client().Shutdown(cmd.Context())
			if absent := (*daemon.NotRunningError)(nil); errors.As(err, &absent) {
				return nil
			}
			return err
		},
	}
}
