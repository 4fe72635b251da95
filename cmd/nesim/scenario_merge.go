package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/nesim/nesim/internal/files"
	"github.com/nesim/nesim/scenarios/report"
	"github.com/nesim/nesim/scenarios/shard"
	"github.com/nesim/nesim/scenarios/trace"
)

func scenarioMerge() *cobra.Command {
	var reports []string
	cmd := &cobra.Command{
		Use:   "merge FILE...",
		Short: "Merge the JSON reports of a sharded run",
		Long: "Merge the JSON reports of all shards of a run (nesim scenario run --shard i/n --report json=FILE), print the\n" +
			"outcome, and write the reports that one machine would have written.\n\n" +
			"The exit code is 1 if a scenario failed, or if a shard is missing, is given twice, or belongs to another run.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			if err := checkReports(reports); err != nil {
				return usageError{err}
			}
			var runs []*trace.Run
			for _, file := range files {
				run, err := readShard(cmd.Context(), file)
				if err != nil {
					return err
				}
				runs = append(runs, run)
			}
			all, err := shard.Merge(runs)
			if err != nil {
				return err
			}
			return finishRun(cmd, liveReport(cmd, true), all, withJSON(cmd, reports))
		},
	}
	reportFlag(cmd, &reports)
	return cmd
}

// readShard reads the JSON report of a shard.
func readShard(ctx context.Context, file string) (*trace.Run, error) {
	f, err := files.Open(ctx, file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	run, err := report.Read(ctx, f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if _, err := shard.Of(run); err != nil {
		return nil, fmt.Errorf("%s: %w: write it with nesim scenario run --shard i/n", file, err)
	}
	return run, nil
}
