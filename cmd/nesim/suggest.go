package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/nesim/nesim/internal/suggest"
)

// otherNames are what other tools call nesim's commands. They are suggested, not accepted: nitro-cli's names are the
// program's own.
var otherNames = map[string]string{
	"ps": "describe-enclaves", "ls": "describe-enclaves", "list": "describe-enclaves", "list-enclaves": "describe-enclaves",
	"rm": "terminate-enclave", "stop": "terminate-enclave", "kill": "terminate-enclave",
	"logs": "console", "attach": "console",
	"run": "run-enclave", "start": "run-enclave", "build": "build-enclave", "wait": "wait-enclave", "sign": "sign-eif",
	"inspect": "describe-eif", "daemon": "serve", "dial": "vsock dial", "listen": "vsock listen",
}

// group makes a command one that only holds others.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return unknownCommand(cmd, args[0])
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { // help where it does not end in a pipe, as of nitro-cli
		cmd.SetOut(cmd.ErrOrStderr())
		return errors.Join(cmd.Help(), usageError{errors.New("a command is missing")})
	}
	return cmd
}

// unknownCommand is the error for a word that is none of a group's commands.
func unknownCommand(group *cobra.Command, word string) error {
	var names []string
	for _, c := range group.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	similar := nearest(word, names)
	if other, ok := otherNames[word]; ok && !group.HasParent() {
		similar = []string{other}
	}
	for i, name := range similar {
		similar[i] = group.CommandPath() + " " + name
	}
	return usageError{fmt.Errorf("unknown command %q: %s", word, suggestion(group, similar))}
}

// unknownFlag is the error for a flag that a command does not have.
func unknownFlag(cmd *cobra.Command, name string) error {
	if name == "json" {
		return usageError{fmt.Errorf("%s does not print JSON: leave --json out", cmd.CommandPath())}
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	similar := nearest(name, names)
	for i, flag := range similar {
		similar[i] = "--" + flag
	}
	return usageError{fmt.Errorf("unknown flag --%s: %s", name, suggestion(cmd, similar))}
}

// suggestion ends an error's line: with similar names, or with where the names are listed.
func suggestion(cmd *cobra.Command, similar []string) string {
	if len(similar) == 0 {
		return "see " + cmd.CommandPath() + " --help"
	}
	return "did you mean " + strings.Join(similar, " or ") + "?"
}

// nearest returns the names that a word may stand for: those that begin with it, else the one with the least edit distance,
// else those that have it as a part, as enclave-cid has cid.
func nearest(word string, names []string) (similar []string) {
	keep := func(match func(name string) bool) []string {
		return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !match(name) })
	}
	word = strings.ToLower(word)
	if word == "" {
		return nil
	}
	if similar = keep(func(name string) bool { return strings.HasPrefix(name, word) }); len(similar) > 0 {
		return similar
	}
	if name := suggest.Nearest(word, names); name != "" && len(word) > 3 {
		return []string{name}
	}
	return keep(func(name string) bool { return strings.Contains("-"+name+"-", "-"+word+"-") })
}
