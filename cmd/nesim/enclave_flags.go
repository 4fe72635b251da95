package main

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"github.com/nesim/nesim/sim/daemon"
	"github.com/nesim/nesim/sim/errcode"
	"github.com/nesim/nesim/sim/instance"
)

// enclaveFlags adds the two flags that name an enclave, and returns a function that reads them. others exclude them, and
// each other.
func enclaveFlags(cmd *cobra.Command, others ...string) func() instance.Ref {
	var ref instance.Ref
	cmd.Flags().StringVar(&ref.ID, "enclave-id", "", "ID of the enclave")
	cmd.Flags().StringVar(&ref.Name, "enclave-name", "", "name of the enclave")
	exactlyOne(cmd, append([]string{"enclave-id", "enclave-name"}, others...)...)
	return func() instance.Ref { return ref }
}

// findEnclave describes a running enclave, if it exists.
func findEnclave(ctx context.Context, c *daemon.Client, enclave instance.Ref) (instance.Description, bool) {
	list, _ := c.Enclaves(ctx, false)
	n := slices.IndexFunc(list, func(d instance.Description) bool { return enclave.Matches(d.ID, d.Name) })
	if n < 0 {
		return instance.Description{}, false
	}
	return list[n], true
}

// unknownEnclave gives an error of a command about one enclave nitro-cli's code, if no daemon answers.
func unknownEnclave(cmd *cobra.Command, err error) error {
	if cmd.Flags().Changed("enclave-name") {
		return absentCode(errcode.EnclaveNaming, err)
	}
	return absentCode(errcode.Socket, err)
}
