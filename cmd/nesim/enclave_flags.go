package main

import "github.com/spf13/cobra"

// enclaveFlags adds the two flags that name an enclave, and returns what they say.
func enclaveFlags(cmd *cobra.Command) func() string {
	var id, name string
	cmd.Flags().StringVar(&id, "enclave-id", "", "the enclave's ID")
	cmd.Flags().StringVar(&name, "enclave-name", "", "the enclave's name")
	cmd.MarkFlagsMutuallyExclusive("enclave-id", "enclave-name")
	cmd.MarkFlagsOneRequired("enclave-id", "enclave-name")
	return func() string {
		if id != "" {
			return id
		}
		return name
	}
}
