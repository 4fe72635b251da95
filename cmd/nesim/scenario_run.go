package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nesim/nesim/scenarios/report"
	runner "github.com/nesim/nesim/scenarios/run"
	"github.com/nesim/nesim/scenarios/stage"
	"github.com/nesim/nesim/scenarios/trace"
)

func scenarioRun() *cobra.Command {
	var engine string
	var tags, reports []string
	var seed uint64
	var parallel int
	cmd := &cobra.Command{
		Use:   "run [PATH...]",
		Short: "Play the scenarios of files and folders; the built-in suite where none is named",
		Long: "Play the scenarios of files and folders, or of the built-in suite where none is named.\n\n" +
			"The exit code is 1 when a scenario fails and 2 when a file cannot be understood.",
		RunE: func(cmd *cobra.Command, paths []string) error {
			on := stage.Engine(engine)
			if on != stage.Scripted && on != stage.QEMU {
				return usageError{fmt.Errorf("no engine %q: choose scripted or qemu", engine)}
			}
			if err := checkReports(reports); err != nil {
				return usageError{err}
			}
			list, err := loadScenarios(cmd, paths)
			if err != nil {
				return err
			}
			if list = runner.Choose(list, tags); len(list) == 0 {
				return usageError{errors.New("no scenario has one of these tags")}
			}
			live := report.Terminal(cmd.OutOrStdout(), isTerminal(cmd.OutOrStdout()) && coloured(os.Getenv))
			all := runner.All(cmd.Context(), list, runner.Options{Engine: on, Seed: seed}, parallel,
				func(r trace.Result) { _ = live.Result(&r) }) // Summary has its error too
			all.Version = version()
			if err := cmd.Context().Err(); err != nil {
				return err
			}
			return tellRun(live, &all, reports)
		},
	}
	f := cmd.Flags()
	f.StringVar(&engine, "engine", string(stage.Scripted), "what runs enclaves: scripted or qemu")
	f.StringSliceVar(&tags, "tags", nil, "only scenarios with one of these tags")
	f.Uint64Var(&seed, "seed", 0, "of all that is left to chance (default: the scenario's, or 1)")
	f.IntVar(&parallel, "parallel", 0, "scenarios at a time (default: as many as there are processors)")
	f.StringArrayVar(&reports, "report", nil, "write a report, FORMAT=FILE; formats: "+strings.Join(report.Formats(), ", "))
	return cmd
}

// checkReports finds out, before all the work, whether the reports that are asked for can be written.
func checkReports(reports []string) error {
	for _, r := range reports {
		format, file, _ := strings.Cut(r, "=")
		if file == "" {
			return fmt.Errorf("--report %s: write it as FORMAT=FILE", r)
		}
		if !slices.Contains(report.Formats(), format) {
			return fmt.Errorf("--report %s: no format %q: choose %s", r, format, strings.Join(report.Formats(), ", "))
		}
	}
	return nil
}

// tellRun tells how all went, and writes the reports.
func tellRun(live *report.Live, all *trace.Run, reports []string) error {
	errs := []error{live.Summary(all)}
	for _, r := range reports {
		format, file, _ := strings.Cut(r, "=")
		errs = append(errs, writeReport(format, file, all))
	}
	if failed := all.Count(trace.Failed) + all.Count(trace.Broken); failed > 0 {
		errs = append(errs, fmt.Errorf("%d of %d scenarios failed", failed, len(all.Results)))
	}
	return errors.Join(errs...)
}

func writeReport(format, file string, all *trace.Run) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	err = report.Write(format, f, all)
	return cmp.Or(err, f.Close())
}
