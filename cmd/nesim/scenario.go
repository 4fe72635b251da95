package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nesim/nesim/scenarios"
	runner "github.com/nesim/nesim/scenarios/run"
	"github.com/nesim/nesim/scenarios/steps"
	"github.com/nesim/nesim/scenarios/suite"
)

func scenario() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "scenario",
		Short: "Reproduce what happens to enclaves, from files",
		Long: "Play scenarios: YAML files that set up an instance, do things with enclaves, break things, and say what must be\n" +
			"seen. The same file runs on real microvms, or within milliseconds on scripted enclaves.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SetOut(cmd.ErrOrStderr())
			return errors.Join(cmd.Help(), usageError{errors.New("a command is missing")})
		},
	}
	cmd.AddCommand(scenarioRun(), scenarioMerge(), scenarioLint(), scenarioList(), scenarioSchema(), scenarioRecord(), scenarioReplay())
	return cmd
}

// loadScenarios reads the scenarios of files and folders, or the suite. What is wrong with them is told a line each.
func loadScenarios(cmd *cobra.Command, paths []string) (list []*scenarios.Scenario, err error) {
	if len(paths) == 0 {
		list, err = suite.Load()
	} else {
		list, err = runner.Load(paths...)
	}
	if err == nil {
		return list, nil
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) == 1 {
		return nil, usageError{err}
	}
	for _, line := range lines {
		fmt.Fprintln(cmd.ErrOrStderr(), line)
	}
	return nil, usageError{fmt.Errorf("%d mistakes are in the scenarios", len(lines))}
}

func scenarioLint() *cobra.Command {
	return &cobra.Command{
		Use:   "lint [PATH...]",
		Short: "Check scenario files and folders without running them; the built-in suite where none is named",
		RunE: func(cmd *cobra.Command, paths []string) error {
			list, err := loadScenarios(cmd, paths)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d scenarios, no mistakes\n", len(list))
			return err
		},
	}
}

func scenarioList() *cobra.Command {
	var tags []string
	cmd := &cobra.Command{
		Use:   "list [PATH...]",
		Short: "List the scenarios of files and folders; the built-in suite where none is named",
		RunE: func(cmd *cobra.Command, paths []string) error {
			list, err := loadScenarios(cmd, paths)
			if err != nil {
				return err
			}
			for _, s := range runner.Choose(list, tags) {
				engines := "scripted, qemu"
				if len(s.Engines) > 0 {
					engines = strings.Join(s.Engines, ", ")
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s:%d\t%s\t%s\t%s\n", s.File, s.Line, s.Name, engines, strings.Join(s.Tags, ","))
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringSliceVar(&tags, "tags", nil, "only scenarios with one of these tags")
	return cmd
}

func scenarioSchema() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of scenario files, for editors",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(steps.Language.Schema())
			return err
		},
	}
}
