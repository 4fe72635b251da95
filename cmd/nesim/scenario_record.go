package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/dustin/go-humanize/english"
	"github.com/spf13/cobra"

	"github.com/nesim/nesim/internal/files"
	"github.com/nesim/nesim/internal/private"
	"github.com/nesim/nesim/scenarios/record"
)

func scenarioRecord() *cobra.Command {
	var socket, device string
	cmd := &cobra.Command{
		Use:   "record FILE",
		Short: "Record the traffic between drivers and the NE PCI device",
		Long: "Record the traffic between drivers and the NE PCI device until ctrl-C. Drivers, including those of primary VMs,\n" +
			"connect to SOCKET instead of the daemon's PCI socket, with vfio-user. nesim scenario replay replays the file.\n\n" +
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
			fmt.Fprintf(cmd.ErrOrStderr(), "Recording drivers on %s; ctrl-C stops.\n", socket)
			return errors.Join(record.Proxy(ctx, l, device, out), out.Close())
		},
	}
	cmd.Flags().StringVar(&socket, "socket", "", "path of the socket to create for drivers")
	cmd.Flags().StringVar(&device, "device", "", "path of the socket of the device (default: that of the daemon)")
	_ = cmd.MarkFlagRequired("socket")
	return cmd
}

func scenarioReplay() *cobra.Command {
	var shrink bool
	var output string
	cmd := &cobra.Command{
		Use:   "replay FILE",
		Short: "Replay a recording against the device model",
		Long: "Replay a recording against the model of the NE PCI device, and print each reply that differs. --shrink removes\n" +
			"the entries that the first difference does not need; --scenario writes the remaining ones as a scenario.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			entries, err := readRecording(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			differences, err := record.Replay(cmd.Context(), entries)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			outcome := replayed{Entries: len(entries), Differences: []string{}}
			for _, d := range differences {
				outcome.Differences = append(outcome.Differences, fmt.Sprint(d))
			}
			if shrink && len(differences) > 0 {
				ctx := cmd.Context()
				if entries = record.Shrink(ctx, entries, record.Shows(ctx, differences[0])); ctx.Err() != nil {
					return ctx.Err()
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "%s the first difference\n", english.PluralWord(len(entries), "1 entry shows", fmt.Sprintf("%d entries show", len(entries))))
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
			if err := showAlways(cmd, outcome, outcome.print); err != nil {
				return err
			}
			if n := len(differences); n > 0 {
				return fmt.Errorf("%s from the recording", english.PluralWord(n, "1 reply differs", fmt.Sprintf("%d replies differ", n)))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&shrink, "shrink", false, "remove the entries that the first difference does not need")
	cmd.Flags().StringVar(&output, "scenario", "", "file to write a scenario to")
	return cmd
}

// replayed is what `nesim scenario replay --json` prints.
type replayed struct {
	Entries     int      `json:"Entries"`
	Differences []string `json:"Differences"`
}

func (r replayed) print(p *printer) {
	for _, d := range r.Differences {
		p.line(d)
	}
	if len(r.Differences) == 0 {
		p.line(english.Plural(r.Entries, "entry", "entries") + " replayed, no difference")
	}
}

func readRecording(ctx context.Context, path string) ([]record.Entry, error) {
	f, err := files.Open(ctx, path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	entries, err := record.Read(ctx, f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return entries, nil
}
