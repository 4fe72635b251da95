package shard

import (
	"errors"
	"fmt"
	"strings"
)

// ErrNone is the error of FromEnv where the environment names no shard.
var ErrNone = errors.New("no CI system's shard is in the environment")

// Each system's variables for the index and the count, and what its first index is.
var systems = []struct {
	name         string
	index, count string
	first        int
	aloneIsOne   bool // the count is set to 1, and the index is not, where nothing is split
}{
	// kubernetes.io/docs, "Indexed Job for Parallel Processing": Kubernetes tells a pod its index only. The count,
	// .spec.completions, is for the manifest to put into NESIM_SHARDS.
	{"Kubernetes", "JOB_COMPLETION_INDEX", "NESIM_SHARDS", 0, false},
	// docs.gitlab.com, "Predefined CI/CD variables".
	{"GitLab", "CI_NODE_INDEX", "CI_NODE_TOTAL", 1, true},
	// circleci.com/docs, "Project values and variables".
	{"CircleCI", "CIRCLE_NODE_INDEX", "CIRCLE_NODE_TOTAL", 0, false},
	// buildkite.com/docs, "Environment variables".
	{"Buildkite", "BUILDKITE_PARALLEL_JOB", "BUILDKITE_PARALLEL_JOB_COUNT", 0, false},
	// learn.microsoft.com, "Use predefined variables", System.JobPositionInPhase and System.TotalJobsInPhase.
	{"Azure Pipelines", "SYSTEM_JOBPOSITIONINPHASE", "SYSTEM_TOTALJOBSINPHASE", 1, false},
}

// Systems lists the systems whose variables FromEnv reads.
func Systems() (names []string) {
	for _, s := range systems {
		names = append(names, s.name)
	}
	return names
}

// FromEnv finds out which shard this is from the variables of an Indexed Job of Kubernetes (whose manifest has to set
// NESIM_SHARDS to its completions), GitLab, CircleCI, Buildkite or Azure Pipelines. Where none is set the error is ErrNone.
// One that is set alone, or is no number, and two systems that disagree, are errors which name the variables.
func FromEnv(env func(string) string) (Shard, error) {
	var found Shard
	var by string
	for _, system := range systems {
		index, count := env(system.index), env(system.count)
		switch {
		case index == "" && count == "":
			continue
		case index == "" && count == "1" && system.aloneIsOne:
			index = "1"
		case index == "":
			return Shard{}, fmt.Errorf("%s is set and %s is not: %s sets both, or write the shard as i/n", system.count, system.index, system.name)
		case count == "":
			return Shard{}, fmt.Errorf("%s is set and %s is not: set it to the number of shards", system.index, system.count)
		}
		s, err := fromPair(system.index, index, system.count, count, system.first)
		if err != nil {
			return Shard{}, err
		}
		if by != "" && found != s {
			return Shard{}, fmt.Errorf("%s says shard %v, and %s says %v: write the shard as i/n", by, found, system.index, s)
		}
		found, by = s, system.index
	}
	if by == "" {
		return Shard{}, fmt.Errorf("%w (of %s): write the shard as i/n", ErrNone, strings.Join(Systems(), ", "))
	}
	return found, nil
}

func fromPair(indexName, index, countName, count string, first int) (Shard, error) {
	n, err := number(count)
	if err != nil || n < 1 || n > MaxCount {
		return Shard{}, fmt.Errorf("%s is %.40q: it has to be a number from 1 to %d", countName, count, MaxCount)
	}
	i, err := number(index)
	if err != nil || i < first || i-first >= n {
		return Shard{}, fmt.Errorf("%s is %.40q: with %s=%d it has to be a number from %d to %d",
			indexName, index, countName, n, first, first+n-1)
	}
	return Shard{i - first + 1, n}, nil
}
