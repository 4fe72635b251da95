package report

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/scenarios/trace"
)

// hostile is what an enclave may say to steer what reads a report.
const hostile = "x\n::error::forged\r\n::endgroup::\r##[error]forged ###[error]forged\nnot ok 99 - forged\n1..0\n" +
	"%0A::warning::forged %s%d \\ # SKIP forged\n  ...\n\x1b[31mred\x1b]0;title\a\x9b31m\b\x00\x7f\t" +
	"</script><script>document.title = owned = 1</script><img src=x onerror='document.title = owned = 1'>]]>&amp;" +
	"\"' --><!-- <script> \xff\xfe\xc3( \u202e\u2028\u0085\ufffe\U0010ffff"

var kinds = []trace.Kind{trace.Step, trace.Command, trace.Interrupt, trace.State, trace.Ioctl, trace.Vsock, trace.Heartbeat,
	trace.Console, trace.NSM, trace.Fault, trace.Note}

// sample is a run with a result of every status, and an entry of every kind.
func sample() *trace.Run {
	started := time.Date(2026, 3, 4, 5, 6, 7, 890, time.UTC)
	run := &trace.Run{Version: "v1", Started: started, Results: []trace.Result{
		{Name: "boots", File: "a.yaml", Line: 3, Tags: []string{"slow", "boot"}, Status: trace.Passed},
		{Name: "refuses", File: "a.yaml", Line: 30, Status: trace.Failed, Error: "no reply within 2s"},
		{Name: "cannot run", File: "b.yaml", Line: 1, Status: trace.Broken, Error: "no QEMU"},
		{Name: "left out", File: "b.yaml", Line: 9, Status: trace.Skipped, Error: "not for this engine"},
	}}
	for i := range run.Results {
		r := &run.Results[i]
		r.Engine, r.Seed, r.Started, r.Elapsed = "scripted", 1<<64-1, started, 1500*time.Millisecond
	}
	for i := range 2 {
		r := &run.Results[i]
		for n, status := range []trace.Status{trace.Passed, r.Status, trace.NotRun} {
			step := trace.StepResult{Number: n + 1, Name: fmt.Sprintf("step %d", n+1), File: r.File, Line: r.Line + n + 1, Status: status}
			if status != trace.NotRun {
				step.Start, step.Elapsed = time.Duration(n)*time.Second/2, time.Second/2
			}
			r.Steps = append(r.Steps, step)
		}
		r.Steps[1].Error = r.Error
		r.Faults = []trace.FaultResult{
			{Name: "late", File: r.File, Line: r.Line + 1, Struck: 2}, {Name: "idle", File: r.File, Line: r.Line + 2},
		}
		for n := range 4 * len(kinds) {
			kind := kinds[n%len(kinds)]
			r.Entries = append(r.Entries, trace.Entry{At: time.Duration(n) * 23 * time.Millisecond, Lane: "device", Kind: kind,
				Text: fmt.Sprintf("%s %d", kind, n), Step: 1 + n/(2*len(kinds))})
		}
	}
	return run
}

// saying is sample with text in all that comes from outside.
func saying(text string) *trace.Run {
	run := sample()
	run.Version, run.Shard = text, text
	for i := range run.Results {
		r := &run.Results[i]
		r.Name, r.Description, r.File, r.Tags, r.Engine, r.Error = text, text, text, []string{text}, text, text
		for n := range r.Steps {
			s := &r.Steps[n]
			s.Name, s.File, s.Branch, s.Error = text, text, text, text
		}
		for n := range r.Entries {
			r.Entries[n].Lane, r.Entries[n].Text = text, text
		}
		for n := range r.Faults {
			r.Faults[n].Name, r.Faults[n].File = text, text
		}
	}
	return run
}

func write(t testing.TB, format string, run *trace.Run) string {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, Write(format, &b, run))
	return b.String()
}

// wellFormed checks what is true of every format, whatever a run holds.
var wellFormed = map[string]func(t testing.TB, text string, run *trace.Run){
	"github": requireGitHub,
	"html":   requireHTML,
	"json":   requireJSON,
	"junit":  requireJUnit,
	"tap":    requireTAP,
}

func TestEveryFormatIsWellFormed(t *testing.T) {
	runs := map[string]*trace.Run{
		"of every status": sample(),
		"hostile":         saying(hostile),
		"silent":          saying(""),
		"long":            saying(strings.Repeat("long ", 5000)),
		"empty":           {},
	}
	for _, format := range Formats() {
		for name, run := range runs {
			t.Run(format+"/"+name, func(t *testing.T) { wellFormed[format](t, write(t, format, run), run) })
		}
	}
}

func TestEveryFormatTellsHowOftenAFaultStruck(t *testing.T) {
	run := sample()
	run.Results = run.Results[:1] // which passed
	want := map[string][]string{
		"github": {"::warning file=a.yaml,line=5,title=boots::a.yaml:5: fault idle: never struck"},
		"html":   {`{"name":"late","file":"a.yaml","line":4,"struck":2}`, `{"name":"idle","file":"a.yaml","line":5,"struck":0}`},
		"json":   {`"struck": 2`, `"struck": 0`},
		"junit":  {`<property name="fault" value="a.yaml:4: fault late: struck 2 times">`, `<property name="warning" value="a.yaml:5: fault idle: never struck">`},
		"tap":    {`    - "a.yaml:4: fault late: struck 2 times"`, `    - "a.yaml:5: fault idle: never struck"`},
	}
	for _, format := range Formats() {
		text := write(t, format, run)
		require.NotEmpty(t, want[format])
		for _, line := range want[format] {
			require.Contains(t, text, line, format)
		}
	}
	for _, style := range []Style{{}, {Brief: true}} {
		var b strings.Builder
		require.NoError(t, Terminal(&b, style).Result(&run.Results[0]))
		require.Contains(t, b.String(), "  warning  a.yaml:5: fault idle: never struck\n")
		require.Equal(t, !style.Brief, strings.Contains(b.String(), "  fault    a.yaml:4: fault late: struck 2 times\n"))
	}
}

func TestWriteNamesTheFormatsItKnows(t *testing.T) {
	require.EqualError(t, Write("pdf", &bytes.Buffer{}, sample()), `no report format "pdf": choose github, html, json, junit, tap`)
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestWriteTellsThatItCouldNot(t *testing.T) {
	for _, format := range Formats() {
		require.EqualError(t, Write(format, full{}, sample()), "write the "+format+" report: disk full")
		require.EqualError(t, Write(format, full{}, &trace.Run{}), "write the "+format+" report: disk full")
	}
}

func FuzzWrite(f *testing.F) {
	f.Add("boots", "no reply")
	f.Add(hostile, hostile)
	f.Add("###[error]", "]]>")
	f.Fuzz(func(t *testing.T, name, message string) {
		run := saying(message)
		for i := range run.Results {
			run.Results[i].Name = name
		}
		for _, format := range Formats() {
			wellFormed[format](t, write(t, format, run), run)
		}
	})
}
