package stage

import (
	"runtime"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/scenarios/scripted"
)

// BenchmarkScriptedLives is how many whole lives of an enclave, each on a stage of its own, one core lives in a second:
// loaded, started, heard, talked to, crashed, and closed, with the trace.
func BenchmarkScriptedLives(b *testing.B) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for b.Loop() {
		life(b)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lives/s")
}

func life(b *testing.B) {
	synctest.Test(new(testing.T), func(t *testing.T) {
		p := set(t, Config{Engine: Scripted, Seed: 1})
		e := p.load("one", scripted.Behaviour{})
		p.Turn(0)
		require.NoError(b, p.start(e, 16))
		p.Turn(0)
		_, err := p.say(16, 5005, "hi")
		require.NoError(b, err)
		p.Turn(0)
		_, err = p.say(16, 5006, "panic\n")
		require.NoError(b, err)
		<-e.Done()
		p.end()
	})
}
