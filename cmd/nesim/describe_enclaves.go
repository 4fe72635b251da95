package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/nesim/nesim/sim/daemon"
	"github.com/nesim/nesim/sim/errcode"
	"github.com/nesim/nesim/sim/instance"
)

func describeEnclaves() *cobra.Command {
	var metadata bool
	cmd := &cobra.Command{
		Use:   "describe-enclaves",
		Short: "List the running enclaves",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := client().Enclaves(cmd.Context(), metadata)
			if absent(err) {
				list, err = []instance.Description{}, nil // no daemon, so no enclave
			}
			if err != nil {
				return err
			}
			if err := show(cmd, list, func(p *printer) { tabulate(p, list, metadata) }); err != nil {
				return err
			}
			if w := cmd.ErrOrStderr(); isTerminal(w) && slices.ContainsFunc(list, inDebug) {
				fmt.Fprintln(w, "Enclaves in debug mode attest PCR0, PCR1 and PCR2 as zeros, not as the image's measurements.")
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&metadata, "metadata", false, "include the metadata of the images")
	return cmd
}

func tabulate(p *printer, list []instance.Description, metadata bool) {
	if len(list) == 0 {
		p.line("No enclave is running.")
		return
	}
	header := []string{"NAME", "ID", "CID", "CPUS", "MEMORY", "STATE", "FLAGS"}
	if metadata {
		header = append(header, "IMAGE", "VERSION")
	}
	var rows [][]cell
	for _, d := range list {
		row := cells(d.Name, d.ID, d.CID, d.CPUCount, fmt.Sprintf("%d MiB", d.MemoryMiB))
		row = append(row, cell{d.State, stateStyle(d.State)}, cell{text: d.Flags})
		if metadata {
			row = append(row, cells(text(d.ImageName), text(d.ImageVersion))...)
		}
		rows = append(rows, row)
	}
	p.table(header, rows)
}

// inDebug reports whether an enclave is in debug mode. Its description has the image's measurements, as nitro-cli's has;
// its attestation documents have not.
func inDebug(d instance.Description) bool { return d.Flags == "DEBUG_MODE" }

func stateStyle(state string) style {
	if state == "RUNNING" {
		return green
	}
	return yellow
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// absent reports whether an error means that no daemon runs.
func absent(err error) bool {
	none := (*daemon.NotRunningError)(nil)
	return errors.As(err, &none)
}

// absentCode gives an error a code if it means that no daemon runs.
func absentCode(code errcode.Code, err error) error {
	if absent(err) {
		return errcode.Wrap(code, err)
	}
	return err
}
