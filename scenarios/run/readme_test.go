package run_test

import (
	"os"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/scenarios/run"
	"github.com/nesim/nesim/scenarios/stage"
	"github.com/nesim/nesim/scenarios/steps"
	"github.com/nesim/nesim/scenarios/trace"
)

func TestTheManualsScenariosPass(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	played := 0
	for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		list, err := steps.Language.Parse("README.md", []byte(block[1]))
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
