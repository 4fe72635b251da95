package main

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/nesim/nesim/sim/daemon"
)

func vsockCommand() *cobra.Command {
	cmd := group(&cobra.Command{Use: "vsock", Short: "Connect standard input and output to a vsock port"})
	cmd.AddCommand(vsockDial(), vsockListen())
	return cmd
}

func vsockDial() *cobra.Command {
	var wait bool
	cmd := &cobra.Command{
		Use:   "dial CID PORT",
		Short: "Connect to a vsock port of an enclave or of the parent",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			cid, err := number("CID", args[0])
			if err != nil {
				return err
			}
			port, err := number("port", args[1])
			if err != nil {
				return err
			}
			stream, err := client().DialVsock(cmd.Context(), cid, port, wait)
			if err != nil {
				return err
			}
			return joinStdio(cmd, stream)
		},
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "retry until a program listens on the port")
	return cmd
}

func vsockListen() *cobra.Command {
	return &cobra.Command{
		Use:   "listen PORT",
		Short: "Accept one connection on a vsock port of the parent",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			port, err := number("port", args[0])
			if err != nil {
				return err
			}
			c, err := runningClient(cmd.Context())
			if err != nil {
				return err
			}
			stream, err := c.AcceptVsock(cmd.Context(), port)
			if err != nil {
				return err
			}
			return joinStdio(cmd, stream)
		},
	}
}

func number(what, text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%s %q is not a number from 0 to 4294967295", what, text)
	}
	return uint32(n), nil
}

// joinStdio sends standard input, closing that direction at its end, and prints what arrives until the peer closes.
func joinStdio(cmd *cobra.Command, stream daemon.Stream) error {
	stop := context.AfterFunc(cmd.Context(), func() { stream.Close() })
	defer stop()
	defer stream.Close()
	go func() { // ends with the input, or with the process
		_, _ = io.Copy(stream, cmd.InOrStdin())
		_ = stream.CloseWrite()
	}()
	if _, err := io.Copy(cmd.OutOrStdout(), stream); err != nil && cmd.Context().Err() == nil {
		return fmt.Errorf("read from the vsock: %w", err)
	}
	return cmd.Context().Err()
}
