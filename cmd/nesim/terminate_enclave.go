package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/nesim/nesim/sim/daemon"
	"github.com/nesim/nesim/sim/instance"
)

// terminated is what nitro-cli's terminate-enclave prints, with its keys in its order.
type terminated struct {
	Name       string `json:"EnclaveName"`
	ID         string `json:"EnclaveID"`
	Terminated bool   `json:"Terminated"`
}

func terminateEnclave() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "terminate-enclave (NAME | ID | --enclave-id ID | --enclave-name NAME | --all)",
		Short: "Terminate one enclave, or all of them",
	}
	enclave := enclaveFlags(cmd, "all")
	enclaveOperand(cmd, "all")
	cmd.Flags().BoolVar(&all, "all", false, "terminate every running enclave")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if all {
			return terminateAll(cmd, client())
		}
		done, err := terminate(cmd, client(), enclave())
		if err != nil {
			return unknownEnclave(cmd, err)
		}
		return show(cmd, done, func(*printer) {}) // reported on standard error
	}
	return cmd
}

func terminate(cmd *cobra.Command, c *daemon.Client, enclave instance.Ref) (terminated, error) {
	ending, err := c.Terminate(cmd.Context(), enclave)
	if err != nil {
		return terminated{}, err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "Successfully terminated enclave %s.\n", ending.ID)
	return terminated{ending.Name, ending.ID, true}, nil
}

func terminateAll(cmd *cobra.Command, c *daemon.Client) error {
	list, err := c.Enclaves(cmd.Context(), false)
	if absent(err) {
		err = nil // no daemon, so no enclave
	}
	all := []terminated{}
	for _, e := range list {
		done, failed := terminate(cmd, c, instance.Ref{ID: e.ID})
		if failed == nil {
			all = append(all, done)
		}
		err = errors.Join(err, failed)
	}
	return errors.Join(show(cmd, all, func(p *printer) {
		if len(all) == 0 {
			p.line("No enclave is running.")
		}
	}), err)
}
