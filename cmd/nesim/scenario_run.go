package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	runner "github.com/nesim/nesim/scenarios/run"
	"github.com/nesim/nesim/scenarios/stage"
	"github.com/nesim/nesim/scenarios/trace"
)

func scenarioRun() *cobra.Command {
	var engine string
	var tags []string
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
			list, err := loadScenarios(cmd, paths)
			if err != nil {
				return err
			}
			if list = runner.Choose(list, tags); len(list) == 0 {
				return usageError{errors.New("no scenario has one of these tags")}
			}
			out := cmd.OutOrStdout()
			all := runner.All(cmd.Context(), list, runner.Options{Engine: on, Seed: seed}, parallel,
				func(r trace.Result) { tellResult(out, &r) })
			all.Version = version()
			if err := cmd.Context().Err(); err != nil {
				return err
			}
			return tellRun(out, &all)
		},
	}
	f := cmd.Flags()
	f.StringVar(&engine, "engine", string(stage.Scripted), "what runs enclaves: scripted or qemu")
	f.StringSliceVar(&tags, "tags", nil, "only scenarios with one of these tags")
	f.Uint64Var(&seed, "seed", 0, "of all that is left to chance (default: the scenario's, or 1)")
	f.IntVar(&parallel, "parallel", 0, "scenarios at a time (default: as many as there are processors)")
	return cmd
}

// tellResult tells how a scenario went: a line, and for one that failed its steps.
func tellResult(out io.Writer, r *trace.Result) {
	fmt.Fprintf(out, "%-8s %s (%s:%d, seed %d, %v)\n", r.Status, r.Name, r.File, r.Line, r.Seed, r.Elapsed.Round(100*time.Microsecond))
	if r.Status != trace.Failed && r.Status != trace.Broken {
		return
	}
	fmt.Fprintf(out, "         %s\n", r.Error)
	for _, s := range r.Steps {
		fmt.Fprintf(out, "  %-8s %s:%d: %s\n", s.Status, s.File, s.Line, s.Name)
	}
}

// tellRun tells how all went.
func tellRun(out io.Writer, all *trace.Run) error {
	fmt.Fprintf(out, "%d passed, %d failed, %d could not run, %d skipped\n",
		all.Count(trace.Passed), all.Count(trace.Failed), all.Count(trace.Broken), all.Count(trace.Skipped))
	if !all.OK() {
		return fmt.Errorf("%d scenarios failed", all.Count(trace.Failed)+all.Count(trace.Broken))
	}
	return nil
}
