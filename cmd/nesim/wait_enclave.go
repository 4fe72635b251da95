package main

import (
	"strconv"

	"github.com/spf13/cobra"
)

func waitEnclave() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "wait-enclave (NAME | ID | --enclave-id ID | --enclave-name NAME)",
		Short: "Wait until an enclave ends and print how it ended",
	}
	enclave := enclaveFlags(cmd)
	enclaveOperand(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ending, err := client().Wait(cmd.Context(), enclave())
		if err != nil {
			return unknownEnclave(cmd, err)
		}
		number := ""
		if ending.ExitCode != nil {
			number = strconv.Itoa(*ending.ExitCode)
		}
		return show(cmd, ending, func(p *printer) {
			p.fields([2]string{"name", ending.Name}, [2]string{"ID", ending.ID}, [2]string{"reason", ending.Reason}, [2]string{"detail", ending.Detail},
				[2]string{"exit code", number}, [2]string{"signal", ending.Signal})
		})
	}
	return cmd
}
