package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/nesim/nesim/sim/errcode"
)

// exitUsage is the exit code for a command line that cannot be parsed, as of nitro-cli's argument parser.
const exitUsage = 2

// usageError is an error in the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// exitCode is what nitro-cli would exit with: the number of the error's code.
func exitCode(err error) int {
	if errors.As(err, &usageError{}) {
		return exitUsage
	}
	if code := errcode.Of(err); code != 0 {
		return int(code)
	}
	if ending := (*badEnding)(nil); errors.As(err, &ending) {
		return ending.code
	}
	return 1
}

// execute runs the command that args name.
func execute(ctx context.Context, args []string) error {
	cmd, understood, done := root(), false, func() {}
	cmd.SetArgs(foldCPUIDs(args))
	cmd.SetFlagErrorFunc(badFlag)
	cmd.PersistentPreRunE = func(cmd *cobra.Command, _ []string) (err error) {
		if err := checkFlags(cmd); err != nil {
			return err
		}
		if done, err = applyVerbosity(cmd); err != nil {
			return err
		}
		understood = true
		return nil
	}
	err := cmd.ExecuteContext(ctx)
	done()
	if err != nil && !understood && errcode.Of(err) == 0 {
		return usageError{err}
	}
	return err
}

// badFlag is the error for a flag that could not be read. A bad value is nitro-cli's E03; the rest its parser refuses.
func badFlag(cmd *cobra.Command, err error) error {
	if absent := (*pflag.NotExistError)(nil); errors.As(err, &absent) && absent.GetSpecifiedShortnames() == "" {
		if args := cmd.Flags().Args(); cmd.HasSubCommands() && len(args) > 0 {
			return unknownCommand(cmd, args[0]) // the flag may be one of the command that was meant
		}
		return unknownFlag(cmd, absent.GetSpecifiedName())
	}
	bad := (*pflag.InvalidValueError)(nil)
	if !errors.As(err, &bad) {
		return usageError{fmt.Errorf("%w: see %s --help", err, cmd.CommandPath())}
	}
	why := "is not " + kind(bad.GetFlag().Value.Type())
	if number := (*strconv.NumError)(nil); errors.As(bad, &number) {
		if errors.Is(number.Err, strconv.ErrRange) {
			why = "is too large a number"
		}
	} else if cause := bad.Unwrap(); cause != nil && kind(bad.GetFlag().Value.Type()) == "" {
		why = cause.Error()
	}
	return errcode.New(errcode.InvalidArgument, "--%s %q %s: see %s --help", bad.GetFlag().Name, bad.GetValue(), why, cmd.CommandPath())
}

// checkArgs makes the errors of a command for surplus or missing arguments end with its usage.
func checkArgs(cmd *cobra.Command) {
	check := cmd.Args
	if check == nil || cmd.HasSubCommands() {
		return
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		err := check(cmd, args)
		usage := strings.TrimSuffix(cmd.UseLine(), " [flags]")
		switch {
		case err == nil, errcode.Of(err) != 0, errors.As(err, new(usageError)):
			return err
		case check(cmd, nil) == nil: // they are optional, or there are none
			return usageError{fmt.Errorf("unexpected argument %q: usage: %s", args[len(args)-1], usage)}
		case len(args) == 0:
			return usageError{fmt.Errorf("an argument is missing: usage: %s", usage)}
		}
		return usageError{fmt.Errorf("wrong number of arguments (%d): usage: %s", len(args), usage)}
	}
}

// kind names the values that a flag's type has, or "" for types of our own.
func kind(flagType string) string {
	switch {
	case strings.HasPrefix(flagType, "uint"):
		return "a whole number"
	case strings.HasPrefix(flagType, "int"):
		return "a number"
	case flagType == "bool":
		return "true or false"
	case flagType == "duration":
		return "a duration such as 30s"
	}
	return ""
}

// checkFlags does what cobra would do next, for errors with codes.
func checkFlags(cmd *cobra.Command) (err error) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if required := f.Annotations[cobra.BashCompOneRequiredFlag]; err == nil && len(required) > 0 && required[0] == "true" && !f.Changed {
			err = missing(cmd, f.Name)
		}
	})
	if err != nil {
		return err
	}
	if err := cmd.ValidateFlagGroups(); err != nil {
		return usageError{errcode.New(errcode.ConflictingArgument, "%w: see %s --help", err, cmd.CommandPath())}
	}
	return nil
}

// exactlyOne makes a command require one of some flags, and refuse more.
func exactlyOne(cmd *cobra.Command, names ...string) {
	atMostOne(cmd, names...)
	before(cmd, func() error {
		if len(given(cmd, names)) == 0 {
			return missing(cmd, names...)
		}
		return nil
	})
}

// atMostOne makes a command refuse more than one of some flags.
func atMostOne(cmd *cobra.Command, names ...string) {
	before(cmd, func() error {
		if set := given(cmd, names); len(set) > 1 {
			return conflicting(cmd, set[0], set[1])
		}
		return nil
	})
}

// together makes a command refuse one of some flags without the others.
func together(cmd *cobra.Command, names ...string) {
	before(cmd, func() error {
		set := given(cmd, names)
		for _, name := range names {
			if len(set) > 0 && !slices.Contains(set, name) {
				return missing(cmd, name)
			}
		}
		return nil
	})
}

// missing is the error for a command line that has none of some flags.
func missing(cmd *cobra.Command, names ...string) error {
	list := "--" + strings.Join(names, " or --")
	return usageError{errcode.New(errcode.MissingArgument, "%s is missing: see %s --help", list, cmd.CommandPath())}
}

// conflicting is the error for a command line with two flags that exclude each other.
func conflicting(cmd *cobra.Command, a, b string) error {
	return usageError{errcode.New(errcode.ConflictingArgument, "--%s and --%s exclude each other: see %s --help", a, b, cmd.CommandPath())}
}

// before adds a check to those that come before the command.
func before(cmd *cobra.Command, check func() error) {
	earlier := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		if earlier != nil {
			if err := earlier(cmd, args); err != nil {
				return err
			}
		}
		return check()
	}
}

// given returns which of the flags are on the command line.
func given(cmd *cobra.Command, names []string) (set []string) {
	for _, name := range names {
		if cmd.Flags().Changed(name) {
			set = append(set, name)
		}
	}
	return set
}

// foldCPUIDs joins the CPUs behind --cpu-ids to one argument: nitro-cli takes them apart, as in --cpu-ids 2 3. What has a
// dot or a slash is a file, not a CPU: run-enclave --cpu-ids 2 3 hello.eif.
func foldCPUIDs(args []string) (folded []string) {
	for n := 0; n < len(args); n++ {
		folded = append(folded, args[n])
		if args[n] == "--" {
			return append(folded, args[n+1:]...)
		}
		if args[n] != "--cpu-ids" {
			continue
		}
		var ids []string
		for n+1 < len(args) && !strings.HasPrefix(args[n+1], "-") && !strings.ContainsAny(args[n+1], "./") {
			n++
			ids = append(ids, args[n])
		}
		if len(ids) > 0 {
			folded = append(folded, strings.Join(ids, ","))
		}
	}
	return folded
}
