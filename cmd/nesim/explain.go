package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/nesim/nesim/sim/errcode"
)

func explain() *cobra.Command {
	var text string
	cmd := &cobra.Command{
		Use:   "explain --error-code CODE",
		Short: "Explain the code of an error, such as E26",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			code, err := errcode.Parse(text)
			if err != nil {
				return err
			}
			e := code.Explain()
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%v: %s.\n%s\n", code, e.Title, e.Text)
			if err == nil && e.Do != "" {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "What to do: %s\n", e.Do)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&text, "error-code", "", "the code, from E00 to E60")
	_ = cmd.MarkFlagRequired("error-code")
	_ = cmd.RegisterFlagCompletionFunc("error-code", completeCodes)
	return cmd
}

func completeCodes(*cobra.Command, []string, string) (codes []string, _ cobra.ShellCompDirective) {
	for code := errcode.MissingArgument; ; code++ {
		if _, err := errcode.Parse(code.String()); err != nil {
			return codes, cobra.ShellCompDirectiveNoFileComp
		}
		codes = append(codes, code.String()+"\t"+code.Explain().Title)
	}
}
