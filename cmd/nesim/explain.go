package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/nesim/nesim/sim/errcode"
)

// explained is what `nesim explain --json` prints.
type explained struct {
	Code  string `json:"Code"`
	Title string `json:"Title"`
	Text  string `json:"Text"`
	Do    string `json:"Do,omitempty"`
}

func explain() *cobra.Command {
	var text string
	cmd := &cobra.Command{
		Use:   "explain (CODE | --error-code CODE)",
		Short: "Explain an error code, such as E26",
		RunE: func(cmd *cobra.Command, _ []string) error {
			code, err := errcode.Parse(text)
			if err != nil {
				return err
			}
			e := code.Explain()
			return showAlways(cmd, explained{code.String(), e.Title, e.Text, e.Do}, func(p *printer) {
				p.line(fmt.Sprintf("%v: %s.", code, e.Title))
				p.line(e.Text)
				if e.Do != "" {
					p.line("What to do: " + e.Do)
				}
			})
		},
	}
	cmd.Flags().StringVar(&text, "error-code", "", "error code, from E00 to E60")
	operand(cmd, func(string) string { return "error-code" }, "error-code")
	_ = cmd.MarkFlagRequired("error-code")
	return cmd
}
