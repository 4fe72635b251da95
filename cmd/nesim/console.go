package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/nesim/nesim/sim/daemon"
)

func console() *cobra.Command {
	var disconnect uint
	cmd := &cobra.Command{
		Use:   "console (--enclave-id ID | --enclave-name NAME)",
		Short: "Show the console of an enclave in debug mode until the enclave ends",
		Args:  cobra.NoArgs,
	}
	enclave := enclaveFlags(cmd)
	cmd.Flags().UintVar(&disconnect, "disconnect-timeout", 0, "leave the console after so many seconds (default: at the enclave's end)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx := cmd.Context()
		if disconnect > 0 {
			limited, cancel := context.WithTimeout(ctx, time.Duration(disconnect)*time.Second)
			defer cancel()
			cmd.SetContext(limited)
		}
		err := follow(cmd, client(), enclave())
		if ctx.Err() == nil && errors.Is(cmd.Context().Err(), context.DeadlineExceeded) {
			return nil // left as asked
		}
		return err
	}
	return cmd
}

// follow copies an enclave's console to the command's output until the enclave ends or the command is interrupted.
func follow(cmd *cobra.Command, c *daemon.Client, enclave string) error {
	stream, err := c.Console(cmd.Context(), enclave)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(cmd.Context(), func() { stream.Close() })
	defer stream.Close()
	defer stop()
	if _, err := io.Copy(cmd.OutOrStdout(), stream); err != nil && cmd.Context().Err() == nil {
		return fmt.Errorf("read the console of %s: %w", enclave, err)
	}
	return cmd.Context().Err()
}
