package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/nesim/nesim/sim/errcode"
)

func man() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "man --output DIR",
		Short: "Write a manual page for each command",
		Long: "Write a manual page for each command, as nesim.1, nesim-run-enclave.1 and so on.\n" +
			"The pages' date is SOURCE_DATE_EPOCH's, where that is set.",
		Example: "  nesim man --output ~/.local/share/man/man1",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return errcode.Wrap(errcode.FileOperationFailure, err)
			}
			top := cmd.Root()
			top.DisableAutoGenTag = true
			header := &doc.GenManHeader{Section: "1", Source: "nesim " + version(), Manual: "nesim"}
			if err := doc.GenManTree(top, header, dir); err != nil {
				return errcode.New(errcode.FileOperationFailure, "write the manual pages: %w", err)
			}
			_, err := fmt.Fprintln(cmd.ErrOrStderr(), "The manual pages are in", dir)
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "output", "", "the folder for the pages; it is made if it is not there")
	_ = cmd.MarkFlagRequired("output")
	_ = cmd.MarkFlagDirname("output")
	return cmd
}
