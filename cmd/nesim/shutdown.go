package main

import "github.com/spf13/cobra"

func shutdown() *cobra.Command {
	return &cobra.Command{
		Use:   "shutdown",
		Short: "End the daemon and every enclave",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := client().Shutdown(cmd.Context()); !absent(err) {
				return err
			}
			return nil
		},
	}
}
