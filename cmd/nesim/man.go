package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/nesim/nesim/internal/files"
	"github.com/nesim/nesim/sim/errcode"
)

func man() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "man --output DIR",
		Short: "Write a manual page for each command",
		Long: "Write a manual page for each command, as nesim.1, nesim-run-enclave.1 and so on.\n" +
			"The date of the pages is SOURCE_DATE_EPOCH, if that is set.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return errcode.Wrap(errcode.FileOperationFailure, err)
			}
			top := cmd.Root()
			top.DisableAutoGenTag = true
			header := &doc.GenManHeader{Section: "1", Source: "nesim " + version(), Manual: "nesim"}
			if err := writePages(top, header, dir); err != nil {
				return errcode.New(errcode.FileOperationFailure, "write the manual pages: %w", err)
			}
			_, err := fmt.Fprintln(cmd.ErrOrStderr(), "Wrote the manual pages to", dir)
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "output", "", "folder for the pages; created if missing")
	_ = cmd.MarkFlagRequired("output")
	_ = cmd.MarkFlagDirname("output")
	return cmd
}

// writePages writes the page of a command and those of the commands below it.
func writePages(cmd *cobra.Command, header *doc.GenManHeader, dir string) error {
	page := *header // GenMan fills it in
	name := strings.ReplaceAll(cmd.CommandPath(), " ", "-") + "." + page.Section
	err := files.WriteTo(filepath.Join(dir, name), 0o666, func(f *os.File) error { return doc.GenMan(cmd, &page, f) })
	for _, below := range cmd.Commands() {
		if below.IsAvailableCommand() && !below.IsAdditionalHelpTopicCommand() {
			err = cmp.Or(err, writePages(below, header, dir))
		}
	}
	return err
}
