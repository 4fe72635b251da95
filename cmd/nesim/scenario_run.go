package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nesim/nesim/internal/files"
	"github.com/nesim/nesim/scenarios/report"
	runner "github.com/nesim/nesim/scenarios/run"
	"github.com/nesim/nesim/scenarios/shard"
	"github.com/nesim/nesim/scenarios/stage"
	"github.com/nesim/nesim/scenarios/trace"
)

func scenarioRun() *cobra.Command {
	var engine, part string
	var tags, reports []string
	var seed uint64
	var parallel int
	var brief bool
	cmd := &cobra.Command{
		Use:   "run [PATH...]",
		Short: "Play the scenarios of files and folders; the built-in suite where none is named",
		Long: "Play the scenarios of files and folders, or of the built-in suite where none is named.\n\n" +
			"The exit code is 1 when a scenario fails and 2 when a file cannot be understood.\n\n" +
			"--shard i/n plays the i-th of n parts, for n machines to share the work; --report json=FILE is what nesim scenario\n" +
			"merge puts together again. --shard auto takes i and n from the variables of an Indexed Job of Kubernetes\n" +
			"(with NESIM_SHARDS set to its completions), GitLab, CircleCI, Buildkite or Azure Pipelines.",
		RunE: func(cmd *cobra.Command, paths []string) error {
			on := stage.Engine(engine)
			if on != stage.Scripted && on != stage.QEMU {
				return usageError{fmt.Errorf("no engine %q: choose scripted or qemu", engine)}
			}
			if err := checkReports(reports); err != nil {
				return usageError{err}
			}
			share, err := shardOf(part, os.Getenv)
			if err != nil {
				return usageError{err}
			}
			list, err := loadScenarios(cmd, paths)
			if err != nil {
				return err
			}
			if list = runner.Choose(list, tags); len(list) == 0 {
				return usageError{errors.New("no scenario has one of these tags")}
			}
			if share.Count > 0 {
				list = shard.Select(list, share) // which may leave none: there are more shards than scenarios
			}
			live := liveReport(cmd, brief)
			all := runner.All(cmd.Context(), list, runner.Options{Engine: on, Seed: seed}, parallel,
				func(r trace.Result) { _ = live.Result(&r) }) // Summary has its error too
			all.Version, all.Engine, all.Seed = version(), engine, seed
			if share.Count > 0 {
				all.Shard = share.String()
			}
			if err := cmd.Context().Err(); err != nil {
				return err
			}
			return tellRun(cmd, live, &all, reports)
		},
	}
	f := cmd.Flags()
	f.StringVar(&engine, "engine", string(stage.Scripted), "what runs enclaves: scripted or qemu")
	f.StringSliceVar(&tags, "tags", nil, "only scenarios with one of these tags")
	f.Uint64Var(&seed, "seed", 0, "of all that is left to chance (default: the scenario's, or 1)")
	f.IntVar(&parallel, "parallel", 0, "scenarios at a time (default: as many as there are processors)")
	f.StringVar(&part, "shard", "", "only a part: the i-th of n, as i/n, or auto")
	f.BoolVar(&brief, "brief", false, "tell the steps of those scenarios only that fail")
	reportFlag(cmd, &reports)
	return cmd
}

// shardOf reads --shard; without one there is none, whatever the environment says.
func shardOf(flag string, env func(string) string) (s shard.Shard, err error) {
	switch flag {
	case "":
		return s, nil
	case "auto":
		s, err = shard.FromEnv(env)
	default:
		s, err = shard.Parse(flag)
	}
	if err != nil {
		return s, fmt.Errorf("--shard %.40s: %w", flag, err)
	}
	return s, nil
}

func reportFlag(cmd *cobra.Command, reports *[]string) {
	cmd.Flags().StringArrayVar(reports, "report", nil,
		"write a report, FORMAT=FILE, where - is standard output; formats: "+strings.Join(report.Formats(), ", "))
}

func liveReport(cmd *cobra.Command, brief bool) *report.Live {
	return report.Terminal(cmd.OutOrStdout(), report.Style{Colours: isTerminal(cmd.OutOrStdout()) && coloured(os.Getenv), Brief: brief})
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
func tellRun(cmd *cobra.Command, live *report.Live, all *trace.Run, reports []string) error {
	errs := []error{live.Summary(all)}
	for _, r := range reports {
		format, file, _ := strings.Cut(r, "=")
		if file == "-" {
			errs = append(errs, report.Write(format, cmd.OutOrStdout(), all))
			continue
		}
		errs = append(errs, writeReport(format, file, all))
	}
	if failed := all.Count(trace.Failed) + all.Count(trace.Broken); failed > 0 {
		errs = append(errs, fmt.Errorf("%d of %d scenarios failed", failed, len(all.Results)))
	}
	return errors.Join(errs...)
}

// writeReport writes a whole report or none.
func writeReport(format, file string, all *trace.Run) error {
	return files.WriteTo(file, 0o666, func(f *os.File) error { return report.Write(format, f, all) })
}
