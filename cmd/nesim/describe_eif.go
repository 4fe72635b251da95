package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/nesim/nesim/eif"
)

func describeEIF() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "describe-eif --eif-path FILE",
		Short: "Check, measure and describe an Enclave Image File",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			info, err := f.Stat()
			if err != nil {
				return err
			}
			described, err := eif.Describe(cmd.Context(), f, info.Size())
			if described != nil {
				err = errors.Join(printJSON(cmd.OutOrStdout(), described), err)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&path, "eif-path", "", "the Enclave Image File")
	_ = cmd.MarkFlagRequired("eif-path")
	return cmd
}
