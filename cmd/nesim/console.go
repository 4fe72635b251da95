package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/spf13/cobra"

	"github.com/nesim/nesim/sim/daemon"
	"github.com/nesim/nesim/sim/errcode"
	"github.com/nesim/nesim/sim/instance"
)

func console() *cobra.Command {
	var disconnect uint64
	cmd := &cobra.Command{
		Use:   "console (NAME | ID | --enclave-id ID | --enclave-name NAME)",
		Short: "Print the console of an enclave in debug mode",
	}
	enclave := enclaveFlags(cmd)
	enclaveOperand(cmd)
	cmd.Flags().Uint64Var(&disconnect, "disconnect-timeout", 0, "seconds after which to leave the console (default: when the enclave ends)")
	raw := rawFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx := cmd.Context()
		if disconnect > 0 {
			limited, cancel := context.WithTimeout(ctx, time.Duration(min(disconnect, math.MaxInt32))*time.Second)
			defer cancel()
			cmd.SetContext(limited)
		}
		c := client()
		if found, ok := findEnclave(ctx, c, enclave()); ok {
			connecting(cmd, found.CID)
		}
		ending, err := follow(cmd, c, enclave(), *raw)
		if err == nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "The enclave has ended: %s.\n", printable(ending.Cause()))
		}
		if ctx.Err() == nil && errors.Is(cmd.Context().Err(), context.DeadlineExceeded) {
			return nil // left as asked
		}
		return unknownEnclave(cmd, err)
	}
	return cmd
}

// connecting prints what nitro-cli prints before it shows a console, on standard output as nitro-cli does.
func connecting(cmd *cobra.Command, cid uint64) {
	if !quiet(cmd) {
		fmt.Fprintf(cmd.OutOrStdout(), "Connecting to the console for enclave %d...\n", cid)
	}
}

// follow copies an enclave's console to the command's output until the enclave ends, and returns how, or until the
// command is interrupted.
func follow(cmd *cobra.Command, c *daemon.Client, enclave instance.Ref, raw bool) (ending instance.Ending, err error) {
	stream, err := c.Console(cmd.Context(), enclave)
	if err != nil {
		return ending, err
	}
	stop := context.AfterFunc(cmd.Context(), func() { stream.Close() })
	defer stream.Close()
	defer stop()
	if !quiet(cmd) {
		fmt.Fprintln(cmd.OutOrStdout(), "Successfully connected to the console.")
	}
	if _, err := io.Copy(tame(cmd.OutOrStdout(), raw), stream); err != nil && cmd.Context().Err() == nil {
		return ending, errcode.New(errcode.EnclaveConsoleRead, "read the console of %s: %w", enclave, err)
	}
	if err := cmd.Context().Err(); err != nil {
		return ending, err
	}
	return c.Wait(cmd.Context(), enclave)
}
