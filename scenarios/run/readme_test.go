package run_test

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/scenarios"
	"github.com/nesim/nesim/scenarios/run"
	"github.com/nesim/nesim/scenarios/stage"
	"github.com/nesim/nesim/scenarios/trace"
)

func TestTheManualsScenariosPass(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	played := 0
	for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		list, err := scenarios.Parse("README.md", []byte(block[1]))
		require.NoError(t, err, block[1])
		for _, s := range list {
			if !s.On(string(stage.Scripted)) {
				continue
			}
			r := run.Run(t.Context(), s, run.Options{Engine: stage.Scripted})
			require.Equal(t, trace.Passed, r.Status, r.Error)
			played++
		}
	}
	require.Equal(t, 3, played)
}

func TestTheManualKnowsTheWholeLanguage(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	for _, part := range []reflect.Type{reflect.TypeFor[scenarios.Scenario](), reflect.TypeFor[scenarios.Instance](), reflect.TypeFor[scenarios.Step](), reflect.TypeFor[scenarios.Fault]()} {
		for i := range part.NumField() {
			tag := part.Field(i).Tag
			words := append(strings.Split(tag.Get("enum"), ","), tag.Get("yaml"))
			for _, word := range words {
				if word != "" && word != "-" {
					require.Regexp(t, "`[^`\n]*\\b"+word+"\\b[^`\n]*`", string(text), "%v", part)
				}
			}
		}
	}
}
