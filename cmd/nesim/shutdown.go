package main

import "github.com/spf13/cobra"

func shutdown() *cobra.Command {
	return &cobra.Command{
		Use:   "shutdown",
		Short: "Stop the daemon and terminate every enclave",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := client().Shutdown(cmd.Context()); !absent(err) {
				return err
			}
			return nil
		},
	}
}
