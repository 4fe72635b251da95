package run

import (
	"github.com/nesim/nesim/scenarios"
	"github.com/nesim/nesim/scenarios/trace"
)

// walk calls f for each step in the order of the file.
func walk(steps []scenarios.Step, branch string, f func(s *scenarios.Step, branch string)) {
	for i := range steps {
		f(&steps[i], branch)
		if parallel, ok := steps[i].Action.(*scenarios.Parallel); ok {
			for _, name := range parallel.Names() {
				walk((*parallel)[name], name, f)
			}
		}
	}
}

// number counts the steps of a scenario in the order of the file, from 1.
func number(s *scenarios.Scenario) map[*scenarios.Step]int {
	numbers := make(map[*scenarios.Step]int)
	walk(s.Steps, "", func(s *scenarios.Step, _ string) { numbers[s] = len(numbers) + 1 })
	return numbers
}

// plan lists the steps of a scenario before any of them is taken.
func plan(s *scenarios.Scenario) (results []trace.StepResult) {
	walk(s.Steps, "", func(s *scenarios.Step, branch string) {
		results = append(results, trace.StepResult{
			Number: len(results) + 1, Name: s.Title(), File: s.File, Line: s.Line, Branch: branch, Status: trace.NotRun,
		})
	})
	return results
}
