package run_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/scenarios/run"
	"github.com/nesim/nesim/scenarios/stage"
	"github.com/nesim/nesim/scenarios/steps"
	"github.com/nesim/nesim/scenarios/trace"
)

// interrupted is a context that is done when it has been asked for its error so many times.
type interrupted struct {
	context.Context
	left atomic.Int64
}

func (i *interrupted) Err() error {
	if i.left.Add(-1) < 0 {
		return context.Canceled
	}
	return nil
}

func TestAnInterruptEndsAStepThatRepeatsSomething(t *testing.T) {
	for name, text := range map[string]string{
		"vCPUs":         "- add_cpu: {enclave: e, count: 4000}",
		"steps":         "- poll: {enclave: e, expect: none}\n- poll: {enclave: e, expect: none}\n- poll: {enclave: e, expect: none}\n- poll: {enclave: e, expect: none}\n- poll: {enclave: e, expect: none}",
		"a long search": "- seen: {regexp: nothing, count: 0}",
	} {
		t.Run(name, func(t *testing.T) {
			list, err := steps.Language.Parse("f.yaml", []byte("name: x\ninstance: {cpus: 4096}\nsteps:\n- create: {enclave: e}\n"+text+"\n"))
			require.NoError(t, err)
			ctx := &interrupted{Context: t.Context()}
			ctx.left.Store(5)
			r := run.Run(ctx, list[0], run.Options{Engine: stage.Scripted})
			require.Equal(t, trace.Failed, r.Status)
			require.Contains(t, r.Error, context.Canceled.Error())
		})
	}
}

func TestATraceWithoutEndFailsItsScenario(t *testing.T) {
	list, err := steps.Language.Parse("f.yaml", []byte(`
name: a console of 110000 lines
engines: [scripted]
steps:
- run:
    enclave: e
    does:
      console:
        - {at: 1s, text: a, times: 10000}
        - {at: 2s, text: b, times: 10000}
        - {at: 3s, text: c, times: 10000}
        - {at: 4s, text: d, times: 10000}
        - {at: 5s, text: e, times: 10000}
        - {at: 6s, text: f, times: 10000}
        - {at: 7s, text: g, times: 10000}
        - {at: 8s, text: h, times: 10000}
        - {at: 9s, text: i, times: 10000}
        - {at: 10s, text: j, times: 10000}
        - {at: 11s, text: k, times: 10000}
- sleep: {for: 1m, why: so that all lines are there}
`))
	require.NoError(t, err)
	r := run.Run(t.Context(), list[0], run.Options{Engine: stage.Scripted})
	require.Equal(t, trace.Failed, r.Status)
	require.Contains(t, r.Error, "its trace comes to more than 100000 entries")
	require.Len(t, r.Entries, trace.MaxEntries)
}
