package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/dustin/go-humanize/english"
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
	var brief, strict bool
	cmd := &cobra.Command{
		Use:   "run [PATH...]",
		Short: "Run the scenarios of files and folders",
		Long: "Run the scenarios of files and folders, or of the built-in suite if none is given.\n\n" +
			"The exit code is 1 if a scenario fails and 2 if a file cannot be parsed.\n\n" +
			"--shard i/n runs the i-th of n parts, so that n machines share the work; nesim scenario merge merges their\n" +
			"JSON reports. --shard auto takes i and n from the variables of an Indexed Job of Kubernetes\n" +
			"(with NESIM_SHARDS set to its completions), GitLab, CircleCI, Buildkite or Azure Pipelines.",
		RunE: func(cmd *cobra.Command, paths []string) error {
			on := stage.Engine(engine)
			if on != stage.Scripted && on != stage.QEMU {
				return usageError{fmt.Errorf("unknown engine %q: choose scripted or qemu", engine)}
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
				return usageError{errors.New("no scenario has any of these tags")}
			}
			if share.Count > 0 {
				list = shard.Select(list, share) // which may leave none: there are more shards than scenarios
			}
			live := liveReport(cmd, brief || quiet(cmd))
			reports = withJSON(cmd, reports)
			all := runner.All(cmd.Context(), list, runner.Options{Engine: on, Seed: seed, Strict: strict}, parallel,
				func(r trace.Result) { _ = live.Result(&r) }) // Summary has its error too
			all.Version, all.Engine, all.Seed = version(), engine, seed
			if share.Count > 0 {
				all.Shard = share.String()
			}
			if err := cmd.Context().Err(); err != nil {
				return err
			}
			return finishRun(cmd, live, &all, reports)
		},
	}
	f := cmd.Flags()
	f.StringVar(&engine, "engine", string(stage.Scripted), "engine that runs the enclaves: scripted or qemu")
	f.StringSliceVar(&tags, "tags", nil, "only scenarios with one of these tags, separated by commas")
	f.Uint64Var(&seed, "seed", 0, "random seed (default: the scenario's, else 1)")
	f.IntVar(&parallel, "parallel", 0, "number of scenarios to run at the same time (default: the number of processors)")
	f.StringVar(&part, "shard", "", "part of the scenarios to run: i/n, or auto")
	f.BoolVar(&brief, "brief", false, "print only the steps of scenarios that fail")
	f.BoolVar(&strict, "strict", false, "fail a scenario if one of its faults never strikes")
	reportFlag(cmd, &reports)
	return cmd
}

// shardOf reads --shard. Without the flag the environment is ignored.
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
		"report to write, as FORMAT=FILE, where - is standard output; can be repeated; formats: "+strings.Join(report.Formats(), ", "))
}

// withJSON adds the report that --json stands for.
func withJSON(cmd *cobra.Command, reports []string) []string {
	if wantsJSON(cmd) {
		return append(reports, "json=-")
	}
	return reports
}

// liveReport prints scenarios as they end. With --json the report has standard output to itself.
func liveReport(cmd *cobra.Command, brief bool) *report.Live {
	if wantsJSON(cmd) {
		return report.Terminal(io.Discard, report.Style{})
	}
	return report.Terminal(cmd.OutOrStdout(), report.Style{Colours: isTerminal(cmd.OutOrStdout()) && coloured(os.Getenv), Brief: brief})
}

// checkReports checks the values of --report, before any scenario runs.
func checkReports(reports []string) error {
	for _, r := range reports {
		format, file, _ := strings.Cut(r, "=")
		if file == "" {
			return fmt.Errorf("--report %s: write it as FORMAT=FILE", r)
		}
		if !slices.Contains(report.Formats(), format) {
			return fmt.Errorf("--report %s: unknown format %q: choose %s", r, format, strings.Join(report.Formats(), ", "))
		}
	}
	return nil
}

// finishRun prints the outcome of a run, and writes the reports.
func finishRun(cmd *cobra.Command, live *report.Live, all *trace.Run, reports []string) error {
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
		errs = append(errs, fmt.Errorf("%d of %s failed", failed, english.Plural(len(all.Results), "scenario", "")))
	}
	return errors.Join(errs...)
}

// writeReport writes a whole report or none.
func writeReport(format, file string, all *trace.Run) error {
	return files.WriteTo(file, 0o666, func(f *os.File) error { return report.Write(format, f, all) })
}
