package main

import "github.com/spf13/cobra"

func waitEnclave() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "wait-enclave (--enclave-id ID | --enclave-name NAME)",
		Short: "Wait for an enclave's end and tell how it ended",
		Args:  cobra.NoArgs,
	}
	enclave := enclaveFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ending, err := client().Wait(cmd.Context(), enclave())
		if err != nil {
			return err
		}
		return printJSON(cmd.OutOrStdout(), ending)
	}
	return cmd
}
