package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"sync"

	"github.com/spf13/cobra"

	"github.com/nesim/nesim/sim/daemon"
	"github.com/nesim/nesim/sim/vsock"
)

func vsockCommand() *cobra.Command {
	cmd := group(&cobra.Command{Use: "vsock", Short: "Connect standard input and output to a vsock port"})
	cmd.AddCommand(vsockDial(), vsockListen())
	return cmd
}

func vsockDial() *cobra.Command {
	var wait bool
	var raw *bool
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
			return joinStdio(cmd, stream, *raw)
		},
	}
	raw = rawFlag(cmd)
	cmd.Flags().BoolVar(&wait, "wait", false, "retry until a program listens on the port")
	return cmd
}

func vsockListen() *cobra.Command {
	var raw *bool
	cmd := &cobra.Command{
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
			return joinStdio(cmd, stream, *raw)
		},
	}
	raw = rawFlag(cmd)
	return cmd
}

func number(what, text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%s %q is not a number from 0 to 4294967295", what, text)
	}
	return uint32(n), nil
}

// joinStdio sends standard input, closing that direction at its end, and prints what arrives, until both directions have ended or the
// peer hangs up. What cannot be written is an error, in either direction.
func joinStdio(cmd *cobra.Command, stream daemon.Stream, raw bool) error {
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	stop := context.AfterFunc(cmd.Context(), func() { stream.Close() })
	defer stop()
	defer stream.Close()
	var in sender
	sent := make(chan error, 1)
	go func() { sent <- in.send(stream, cmd.InOrStdin()) }() // ends with the input, or with the process
	_, err := io.Copy(tame(cmd.OutOrStdout(), raw), stream)
	if err == nil {
		err = in.finish(ctx, stream, sent)
	}
	if cmd.Context().Err() != nil {
		return cmd.Context().Err()
	}
	return err
}

// sender sends an input, whose reading cannot be interrupted.
type sender struct {
	writing sync.Mutex // held from when there is something to send until it is sent
	err     error      // why that failed; guarded by writing
}

func (s *sender) send(stream daemon.Stream, input io.Reader) error {
	_, err := io.Copy(s.to(stream), input)
	if err == nil {
		_ = stream.CloseWrite()
	}
	return err
}

// to returns a writer to the stream that keeps its error.
func (s *sender) to(stream daemon.Stream) io.Writer {
	return writerFunc(func(p []byte) (int, error) {
		s.writing.Lock()
		defer s.writing.Unlock()
		n, err := stream.Write(p)
		if err != nil {
			s.err = fmt.Errorf("write to the vsock: %w", err)
		}
		return n, s.err
	})
}

// finish waits, once the peer sends no more, until the input has ended or the peer has hung up.
func (s *sender) finish(ctx context.Context, stream daemon.Stream, sent <-chan error) error {
	hungUp := make(chan struct{})
	go func() { // ends with ctx
		if vsock.HungUp(ctx, stream) {
			close(hungUp)
		}
	}()
	select {
	case err := <-sent:
		return err
	case <-hungUp:
	}
	s.writing.Lock() // a write that is under way fails
	defer s.writing.Unlock()
	return s.err
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
