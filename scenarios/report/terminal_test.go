package report

import (
	"bytes"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/scenarios/trace"
)

func tell(t *testing.T, colours bool, run *trace.Run) string {
	t.Helper()
	return tellIn(t, Style{Colours: colours}, run)
}

func tellIn(t *testing.T, style Style, run *trace.Run) string {
	t.Helper()
	var b bytes.Buffer
	live := Terminal(&b, style)
	for i := range run.Results {
		require.NoError(t, live.Result(&run.Results[i]))
	}
	require.NoError(t, live.Summary(run))
	return b.String()
}

func TestTerminalTellsAStepOnALine(t *testing.T) {
	run := sample()
	run.Results = run.Results[:1]
	run.Results[0].VMMMemory = 54 << 20
	brief := "passed   boots (a.yaml:3, seed 18446744073709551615, 1.5s)\n"
	steps := "  passed   a.yaml:4: step 1 (500ms)\n  passed   a.yaml:5: step 2 (500ms)\n  not run  a.yaml:6: step 3\n"
	faults := "  fault    a.yaml:4: fault late: struck 2 times\n"
	idle := "  warning  a.yaml:5: fault idle: never struck\n"
	sum := "1 passed, 0 failed, 0 could not run, 0 skipped\na VMM took at most 54 MiB beside its enclave's RAM\n"
	require.Equal(t, brief+steps+faults+idle+sum, tell(t, false, run))
	require.Equal(t, brief+idle+sum, tellIn(t, Style{Brief: true}, run))
}

func TestTerminalTellsAStepOnALineAndTheTraceAroundTheFailingOne(t *testing.T) {
	run := sample()
	run.Results = run.Results[1:2]
	lines := requireLines(t, tell(t, false, run))
	require.Equal(t, []string{
		"failed   refuses (a.yaml:30, seed 18446744073709551615, 1.5s)",
		"  passed   a.yaml:31: step 1 (500ms)",
		"  failed   a.yaml:32: step 2 (500ms)",
		"           no reply within 2s",
		"           (18 earlier entries)",
	}, lines[:5])
	var marked, near int
	for _, line := range lines[5:] {
		switch {
		case strings.HasPrefix(line, "         |   +"):
			marked++
		case strings.HasPrefix(line, "             +"):
			near++
		}
	}
	require.Equal(t, 22, marked) // the failing step's
	require.Equal(t, 4, near)    // those before them
	require.Equal(t, []string{
		"  not run  a.yaml:33: step 3",
		"  fault    a.yaml:31: fault late: struck 2 times",
		"  warning  a.yaml:32: fault idle: never struck",
		"",
		"failed   a.yaml:32: refuses: no reply within 2s",
		"0 passed, 1 failed, 0 could not run, 0 skipped",
	}, lines[len(lines)-6:])
}

func TestTerminalTellsWhyNothingRan(t *testing.T) {
	run := sample()
	run.Results = run.Results[2:]
	require.Equal(t, []string{
		"error    cannot run (b.yaml:1, seed 18446744073709551615, 1.5s)",
		"           no QEMU",
		"skipped  left out (b.yaml:9, seed 18446744073709551615, 1.5s)",
		"         not for this engine",
		"",
		"error    b.yaml:1: cannot run: no QEMU",
		"0 passed, 0 failed, 1 could not run, 1 skipped",
	}, requireLines(t, tell(t, false, run)))
}

func TestTerminalCannotBeSteered(t *testing.T) {
	polite := requireLines(t, tell(t, false, saying("text")))
	require.Len(t, requireLines(t, tell(t, false, saying(hostile))), len(polite))

	own := regexp.MustCompile("\x1b\\[(0|2|31|32|33|1;31)m")
	coloured := tell(t, true, saying(hostile))
	require.Contains(t, coloured, "\x1b[1;31mfailed\x1b[0m")
	require.Equal(t, tell(t, false, saying(hostile)), own.ReplaceAllString(coloured, ""))
}

func TestTerminalKeepsItsFirstError(t *testing.T) {
	live := Terminal(full{}, Style{})
	require.EqualError(t, live.Result(&sample().Results[1]), "disk full")
	require.EqualError(t, live.Summary(sample()), "disk full")
}
