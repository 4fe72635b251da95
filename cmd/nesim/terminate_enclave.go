package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/nesim/nesim/sim/daemon"
)

// terminated is what nitro-cli's terminate-enclave prints, with its keys in its order.
type terminated struct {
	Name       string `json:"EnclaveName"`
	ID         string `json:"EnclaveID"`
	Terminated bool   `json:"Terminated"`
}

func terminateEnclave() *cobra.Command {
	var id, name string
	var all bool
	cmd := &cobra.Command{
		Use:   "terminate-enclave (--enclave-id ID | --enclave-name NAME | --all)",
		Short: "End an enclave, or all of them",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if all {
				return terminateAll(cmd, client())
			}
			if id == "" {
				id = name
			}
			return terminate(cmd, client(), id)
		},
	}
	cmd.Flags().StringVar(&id, "enclave-id", "", "the enclave's ID")
	cmd.Flags().StringVar(&name, "enclave-name", "", "the enclave's name")
	cmd.Flags().BoolVar(&all, "all", false, "every running enclave")
	cmd.MarkFlagsMutuallyExclusive("enclave-id", "enclave-name", "all")
	cmd.MarkFlagsOneRequired("enclave-id", "enclave-name", "all")
	return cmd
}

func terminate(cmd *cobra.Command, c *daemon.Client, id string) error {
	ending, err := c.Terminate(cmd.Context(), id)
	if err != nil {
		return err
	}
	return printJSON(cmd.OutOrStdout(), terminated{ending.Name, ending.ID, true})
}

func terminateAll(cmd *cobra.Command, c *daemon.Client) error {
	list, err := c.Enclaves(cmd.Context())
	if absent := (*daemon.NotRunningError)(nil); errors.As(err, &absent) {
		return nil
	}
	for _, e := range list {
		err = errors.Join(err, terminate(cmd, c, e.ID))
	}
	return err
}
