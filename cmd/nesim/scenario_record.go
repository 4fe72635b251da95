package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/nesim/nesim/internal/files"
	"github.com/nesim/nesim/internal/private"
	"github.com/nesim/nesim/scenarios/record"
)

func scenarioRecord() *cobra.Command {
	var socket, device string
	cmd := &cobra.Command{
		Use:   "record FILE",
		Short: "Record what drivers and the NE PCI device say to each other",
		Long: "Record what drivers and the NE PCI device say to each other, until ctrl-C: drivers, those of primary VMs too,\n" +
			"connect to SOCKET in place of the daemon's PCI socket, by vfio-user. Replay the file with nesim scenario replay.\n\n" +
			"nesim serve --record FILE records all drivers of a daemon, its own and those of nesim parent.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			ctx := cmd.Context()
			if device == "" {
				c, err := runningClient(ctx)
				if err != nil {
					return err
				}
				about, err := c.About(ctx)
				if err != nil {
					return err
				}
				device = about.PCISocket
			}
			out, err := files.NewLive(args[0], 0o600)
			if err != nil {
				return err
			}
			l, err := private.Listen(socket)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "recording drivers on %s; ctrl-C ends it\n", socket)
			return errors.Join(record.Proxy(ctx, l, device, out), out.Close())
		},
	}
	cmd.Flags().StringVar(&socket, "socket", "", "path of the socket to be made for drivers")
	cmd.Flags().StringVar(&device, "device", "", "path of the device's socket (default: the daemon's)")
	_ = cmd.MarkFlagRequired("socket")
	return cmd
}

func scenarioReplay() *cobra.Command {
	var shrink bool
	var output string
	cmd := &cobra.Command{
		Use:   "replay FILE",
		Short: "Replay a recording against the model of the NE PCI device",
		Long: "Replay a recording against the model of the NE PCI device, and tell each reply that differs. --shrink leaves out\n" +
			"all that the first difference does not need; --scenario writes a scenario of what is left.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			entries, err := readRecording(args[0])
			if err != nil {
				return err
			}
			differences, err := record.Replay(entries)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			for _, d := range differences {
				fmt.Fprintln(cmd.OutOrStdout(), d)
			}
			if shrink && len(differences) > 0 {
				entries = record.Shrink(entries, record.Shows(differences[0]))
				fmt.Fprintf(cmd.ErrOrStderr(), "%d entries show the first difference\n", len(entries))
			}
			if output != "" {
				text, err := record.Scenario("recorded in "+args[0], entries)
				if err != nil {
					return fmt.Errorf("%s: %w", args[0], err)
				}
				if err := files.Write(output, []byte(text), 0o666); err != nil {
					return err
				}
			}
			if len(differences) > 0 {
				return fmt.Errorf("%d replies differ from those recorded", len(differences))
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d entries replayed, no difference\n", len(entries))
			return err
		},
	}
	cmd.Flags().BoolVar(&shrink, "shrink", false, "leave out what the first difference does not need")
	cmd.Flags().StringVar(&output, "scenario", "", "write a scenario to this file")
	return cmd
}

func readRecording(path string) ([]record.Entry, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	entries, err := record.Read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return entries, nil
}
