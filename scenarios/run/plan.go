package run

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/nesim/nesim/scenarios"
	"github.com/nesim/nesim/scenarios/trace"
)

// walk calls f for each step in the order of the file.
func walk(steps []scenarios.Step, branch string, f func(s *scenarios.Step, branch string)) {
	for i := range steps {
		f(&steps[i], branch)
		for _, name := range branches(steps[i].Parallel) {
			walk(steps[i].Parallel[name], name, f)
		}
	}
}

// branches names the branches of a parallel step in the order of the file.
func branches(parallel map[string][]scenarios.Step) []string {
	line := func(name string) int {
		if len(parallel[name]) == 0 {
			return 0
		}
		return parallel[name][0].Line
	}
	return slices.SortedFunc(maps.Keys(parallel), func(a, b string) int {
		return cmp.Or(cmp.Compare(line(a), line(b)), strings.Compare(a, b))
	})
}

// number counts the steps of a scenario in the order of the file, from 1.
func number(s *scenarios.Scenario) map[*scenarios.Step]int {
	numbers := make(map[*scenarios.Step]int)
	walk(s.Steps, "", func(s *scenarios.Step, _ string) { numbers[s] = len(numbers) + 1 })
	return numbers
}

// plan lists the steps of a scenario as they are before anything is done.
func plan(s *scenarios.Scenario) (results []trace.StepResult) {
	walk(s.Steps, "", func(s *scenarios.Step, branch string) {
		results = append(results, trace.StepResult{
			Number: len(results) + 1, Name: title(s), File: s.File, Line: s.Line, Branch: branch, Status: trace.NotRun,
		})
	})
	return results
}

// maxTitle bounds the words for a step, in bytes.
const maxTitle = 120

// title is a step in one line: its name, or its action and what the file says of it.
func title(s *scenarios.Step) string {
	if s.Name != "" {
		return s.Name
	}
	text := ""
	fields(reflect.ValueOf(*s), func(key string, v reflect.Value) {
		switch key {
		case "name", "timeout":
		case "expect_error":
			text = " expect_error=" + v.String() // the first of a step's keys, and told last
		case "parallel":
			text = "parallel " + strings.Join(branches(s.Parallel), ", ") + text
		default:
			text = key + shown(v) + text
		}
	})
	if len(text) > maxTitle {
		text = strings.ToValidUTF8(text[:maxTitle], "") + "..."
	}
	return strings.Join(strings.Fields(text), " ")
}

// fields calls f for each field of a structure that the file sets.
func fields(v reflect.Value, f func(key string, v reflect.Value)) {
	for i := range v.NumField() {
		if key := v.Type().Field(i).Tag.Get("yaml"); key != "-" && key != "" && !v.Field(i).IsZero() {
			f(key, v.Field(i))
		}
	}
}

// shown writes a value on the same line.
func shown(v reflect.Value) string {
	for v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if v.Kind() != reflect.Struct {
		if s, ok := v.Interface().(scenarios.Duration); ok {
			return s.Std().String()
		}
		return fmt.Sprint(v.Interface())
	}
	var b strings.Builder
	fields(v, func(key string, v reflect.Value) {
		for v.Kind() == reflect.Pointer {
			v = v.Elem()
		}
		switch key {
		case "enclave", "on", "process":
			b.WriteString(" " + shown(v))
		default:
			b.WriteString(" " + key + "=" + strings.TrimSpace(shown(v)))
		}
	})
	return b.String()
}
