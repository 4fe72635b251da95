package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/dustin/go-humanize/english"
	"github.com/spf13/cobra"

	"github.com/nesim/nesim/scenarios"
	runner "github.com/nesim/nesim/scenarios/run"
	"github.com/nesim/nesim/scenarios/steps"
	"github.com/nesim/nesim/scenarios/suite"
)

func scenario() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "scenario",
		Short: "Run scenario files against simulated enclaves",
		Long: "Run scenarios: YAML files that set up an instance, act on enclaves, inject faults, and state what must be\n" +
			"observed. The same file runs on real microvms, or within milliseconds on scripted enclaves.",
	})
	cmd.AddCommand(scenarioRun(), scenarioMerge(), scenarioLint(), scenarioList(), scenarioSchema(), scenarioRecord(), scenarioReplay())
	return cmd
}

// loadScenarios reads the scenarios of files and folders, or the suite. Each mistake in them is printed on a line.
func loadScenarios(cmd *cobra.Command, paths []string) (list []*scenarios.Scenario, err error) {
	if len(paths) == 0 {
		list, err = suite.Load()
	} else {
		list, err = runner.Load(cmd.Context(), paths...)
	}
	if err == nil || cmd.Context().Err() != nil {
		return list, err
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) == 1 {
		return nil, usageError{err}
	}
	for _, line := range lines {
		fmt.Fprintln(os.Stderr, line)
	}
	return nil, usageError{fmt.Errorf("%d mistakes in the scenarios", len(lines))}
}

func scenarioLint() *cobra.Command {
	return &cobra.Command{
		Use:   "lint [PATH...]",
		Short: "Check scenario files without running them",
		Long:  "Check the scenarios of files and folders, or of the built-in suite, without running them.",
		RunE: func(cmd *cobra.Command, paths []string) error {
			list, err := loadScenarios(cmd, paths)
			if err != nil {
				return err
			}
			return showAlways(cmd, map[string]int{"Scenarios": len(list)}, func(p *printer) {
				p.line(english.Plural(len(list), "scenario", "") + ", no mistakes")
			})
		},
	}
}

// listedScenario is what `nesim scenario list --json` prints of a scenario.
type listedScenario struct {
	File    string   `json:"File"`
	Line    int      `json:"Line"`
	Name    string   `json:"Name"`
	Engines []string `json:"Engines"`
	Tags    []string `json:"Tags"`
}

func scenarioList() *cobra.Command {
	var tags []string
	cmd := &cobra.Command{
		Use:   "list [PATH...]",
		Short: "List the scenarios of files and folders",
		Long:  "List the scenarios of files and folders, or of the built-in suite: place, name, engines and tags.",
		RunE: func(cmd *cobra.Command, paths []string) error {
			list, err := loadScenarios(cmd, paths)
			if err != nil {
				return err
			}
			listed := []listedScenario{}
			for _, s := range runner.Choose(list, tags) {
				engines := s.Engines
				if len(engines) == 0 {
					engines = []string{"scripted", "qemu"}
				}
				listed = append(listed, listedScenario{s.File, s.Line, s.Name, engines, append([]string{}, s.Tags...)})
			}
			return showAlways(cmd, listed, func(p *printer) {
				for _, s := range listed {
					p.line(fmt.Sprintf("%s:%d\t%s\t%s\t%s", s.File, s.Line, s.Name, strings.Join(s.Engines, ", "), strings.Join(s.Tags, ",")))
				}
			})
		},
	}
	cmd.Flags().StringSliceVar(&tags, "tags", nil, "only scenarios with one of these tags, separated by commas")
	return cmd
}

func scenarioSchema() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of scenario files",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(steps.Language.Schema())
			return err
		},
	}
}
