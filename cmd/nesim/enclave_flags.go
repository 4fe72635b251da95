package main

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/nesim/nesim/sim/daemon"
	"github.com/nesim/nesim/sim/errcode"
	"github.com/nesim/nesim/sim/instance"
)

// enclaveFlags adds the two flags that name an enclave, and returns the reference that they make. others exclude them, and each other.
func enclaveFlags(cmd *cobra.Command, others ...string) func() instance.Ref {
	var ref instance.Ref
	cmd.Flags().StringVar(&ref.ID, "enclave-id", "", "the enclave's ID")
	cmd.Flags().StringVar(&ref.Name, "enclave-name", "", "the enclave's name")
	exactlyOne(cmd, append([]string{"enclave-id", "enclave-name"}, others...)...)
	completeEnclaves(cmd, "enclave-id", func(d instance.Description) string { return d.ID })
	completeEnclaves(cmd, "enclave-name", func(d instance.Description) string { return d.Name })
	return func() instance.Ref { return ref }
}

// completeEnclaves offers the running enclaves to the shell as a flag's values.
func completeEnclaves(cmd *cobra.Command, flag string, value func(instance.Description) string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		ctx := cmd.Context()
		if ctx == nil {
			ctx = context.Background()
		}
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		list, _ := client().Enclaves(ctx, false)
		var values []string
		for _, d := range list {
			values = append(values, value(d))
		}
		return values, cobra.ShellCompDirectiveNoFileComp
	})
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

// unknownEnclave gives the error of a command that names an enclave nitro-cli's code, where no daemon answers.
func unknownEnclave(cmd *cobra.Command, err error) error {
	if cmd.Flags().Changed("enclave-name") {
		return absentCode(errcode.EnclaveNaming, err)
	}
	return absentCode(errcode.Socket, err)
}
