package main

import (
	"regexp"

	"github.com/spf13/cobra"

	"github.com/nesim/nesim/sim/errcode"
)

// operand lets a command's only argument stand for a flag, which flag chooses: describe-eif FILE is describe-eif
// --eif-path FILE. The argument excludes the flags named.
func operand(cmd *cobra.Command, flag func(arg string) string, flags ...string) {
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		if err := cobra.MaximumNArgs(1)(cmd, args); err != nil {
			return err
		}
		if set := given(cmd, flags); len(set) > 0 {
			return usageError{errcode.New(errcode.ConflictingArgument, "the argument %q and --%s exclude each other: see %s --help",
				args[0], set[0], cmd.CommandPath())}
		}
		return cmd.Flags().Set(flag(args[0]), args[0]) // before the checks of flags, for which it counts as one
	}
}

// fileOperand is operand for a command about one image.
func fileOperand(cmd *cobra.Command, others ...string) {
	operand(cmd, func(string) string { return "eif-path" }, append([]string{"eif-path"}, others...)...)
}

// enclaveID matches an enclave's ID: the instance's ID and the slot's.
var enclaveID = regexp.MustCompile(`-enc[0-9a-f]+$`)

// enclaveOperand is operand for a command about one enclave. What has the form of an ID is one.
func enclaveOperand(cmd *cobra.Command, others ...string) {
	operand(cmd, func(arg string) string {
		if enclaveID.MatchString(arg) {
			return "enclave-id"
		}
		return "enclave-name"
	}, append([]string{"enclave-id", "enclave-name"}, others...)...)
}
