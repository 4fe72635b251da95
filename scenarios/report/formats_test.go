package report

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/nesim/nesim/scenarios/trace"
)

// requireLines checks that text is UTF-8 and printable, and gives its lines.
func requireLines(t testing.TB, text string) []string {
	t.Helper()
	require.True(t, utf8.ValidString(text))
	body, ended := strings.CutSuffix(text, "\n")
	require.True(t, ended)
	lines := strings.Split(body, "\n")
	for _, line := range lines {
		require.Equal(t, printable(line), line)
	}
	return lines
}

func bad(run *trace.Run) int { return run.Count(trace.Failed) + run.Count(trace.Broken) }

// A workflow command, as GitHub's runner reads one.
var githubAnnotation = regexp.MustCompile(`^::(error|warning) file=([^:,]*),line=([1-9]\d*),title=([^:,]*)::(.*)$`)

func requireGitHub(t testing.TB, text string, run *trace.Run) {
	lines := requireLines(t, text)
	require.False(t, strings.Contains(text, "##["), "a command in the old form")
	errors, warnings, open, groups := 0, 0, false, 0
	for _, line := range lines {
		switch {
		case strings.HasPrefix(line, "::group::"):
			require.False(t, open)
			open = true
			groups++
		case line == "::endgroup::":
			require.True(t, open)
			open = false
		case strings.HasPrefix(line, "::"):
			require.False(t, open)
			require.Regexp(t, githubAnnotation, line)
			if strings.HasPrefix(line, "::error ") {
				errors++
			} else {
				warnings++
			}
		default:
			require.NotRegexp(t, `^\s*::`, line)
			require.True(t, !open || strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "engine "), line)
		}
	}
	require.False(t, open)
	require.Equal(t, bad(run), errors)
	require.Equal(t, bad(run), groups)
	idle := 0
	for i := range run.Results {
		idle += len(run.Results[i].Idle())
	}
	require.Equal(t, idle, warnings)
}

func TestGitHubAnnotatesTheFailingStep(t *testing.T) {
	run := sample()
	run.Results[1].Name = "100%: a, b"
	text := write(t, "github", run)
	require.Contains(t, text, "::error file=a.yaml,line=32,title=100%25%3A a%2C b::no reply within 2s\n::group::100%25: a, b\n")
	require.Contains(t, text, "::error file=b.yaml,line=1,title=cannot run::no QEMU\n")
	require.True(t, strings.HasSuffix(text, "\n1 passed, 1 failed, 1 could not run, 1 skipped\n"))
}

func requireJUnit(t testing.TB, text string, run *trace.Run) {
	type counts struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
		Errors   int `xml:"errors,attr"`
		Skipped  int `xml:"skipped,attr"`
	}
	type problem struct {
		Message string `xml:"message,attr"`
	}
	var all struct {
		XMLName xml.Name `xml:"testsuites"`
		counts
		Suites []struct {
			counts
			Cases []struct {
				Name    string   `xml:"name,attr"`
				Failure *problem `xml:"failure"`
				Error   *problem `xml:"error"`
				Skipped *problem `xml:"skipped"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	d := xml.NewDecoder(strings.NewReader(text))
	require.NoError(t, d.Decode(&all))
	rest, err := d.Token()
	require.Equal(t, xml.CharData("\n"), rest)
	require.NoError(t, err)
	_, err = d.Token()
	require.ErrorIs(t, err, io.EOF)

	require.Equal(t, counts{len(run.Results), run.Count(trace.Failed), run.Count(trace.Broken), run.Count(trace.Skipped)}, all.counts)
	var sum counts
	names := map[string]int{}
	for _, suite := range all.Suites {
		var seen counts
		for _, c := range suite.Cases {
			names[c.Name]++
			seen.Tests++
			for count, p := range map[*int]*problem{&seen.Failures: c.Failure, &seen.Errors: c.Error, &seen.Skipped: c.Skipped} {
				if p != nil {
					*count++
					require.NotEmpty(t, p.Message)
				}
			}
		}
		require.Equal(t, suite.counts, seen)
		sum = counts{sum.Tests + seen.Tests, sum.Failures + seen.Failures, sum.Errors + seen.Errors, sum.Skipped + seen.Skipped}
	}
	require.Equal(t, all.counts, sum)
	for _, r := range run.Results {
		require.Positive(t, names[printable(r.Name)], "%q", r.Name)
	}
}

func TestJUnitHasASuiteForEachFile(t *testing.T) {
	text := write(t, "junit", sample())
	require.Contains(t, text, `<testsuite name="a.yaml" timestamp="2026-03-04T05:06:07" tests="2" failures="1" errors="0" skipped="0" time="3.000000">`)
	require.Contains(t, text, `<testcase name="refuses" classname="a.yaml" file="a.yaml" line="30" time="1.500000">`)
	require.Contains(t, text, `<property name="seed" value="18446744073709551615">`)
	require.Contains(t, text, `<failure message="no reply within 2s" type="expectation">a.yaml:32: no reply within 2s`)
	require.Contains(t, text, `<error message="no QEMU" type="stage">`)
	require.Contains(t, text, `<skipped message="not for this engine">`)
}

// tapPoint is a test point: its result, number, description (in which # is escaped) and directive.
var tapPoint = regexp.MustCompile(`^(ok|not ok) (\d+) - ((?:[^\\#]|\\[\\#])*?)( # SKIP (?:[^\\#]|\\[\\#])*)?$`)

func requireTAP(t testing.TB, text string, run *trace.Run) {
	lines := requireLines(t, text)
	require.Equal(t, []string{"TAP version 14", fmt.Sprintf("1..%d", len(run.Results))}, lines[:2])
	points := 0
	var block []string
	for _, line := range lines[2:] {
		if strings.HasPrefix(line, "  ") {
			block = append(block, line)
			if line == "  ..." {
				require.Equal(t, "  ---", block[0])
				r := run.Results[points-1]
				var told struct {
					Message, Engine string
					Seed            uint64
				}
				require.NoError(t, yaml.Unmarshal([]byte(strings.Join(block[1:len(block)-1], "\n")), &told))
				require.Equal(t, r.Seed, told.Seed)
				require.Equal(t, printable(r.Engine), told.Engine)
				block = nil
			}
			continue
		}
		require.Empty(t, block)
		match := tapPoint.FindStringSubmatch(line)
		require.NotNil(t, match, line)
		r := run.Results[points]
		points++
		require.Equal(t, strconv.Itoa(points), match[2])
		require.Equal(t, r.Status == trace.Passed || r.Status == trace.Skipped, match[1] == "ok")
		require.Equal(t, r.Status == trace.Skipped, match[4] != "")
		require.Equal(t, printable(r.Name), strings.NewReplacer(`\\`, `\`, `\#`, `#`).Replace(match[3]))
	}
	require.Empty(t, block)
	require.Equal(t, len(run.Results), points)
}

func requireJSON(t testing.TB, text string, run *trace.Run) {
	again, err := Read(context.Background(), strings.NewReader(text))
	for _, r := range run.Results {
		if r.Name == "" {
			require.ErrorContains(t, err, "it has no name")
			return
		}
	}
	require.NoError(t, err)
	require.Len(t, again.Results, len(run.Results))
	twice, err := Read(context.Background(), strings.NewReader(write(t, "json", again)))
	require.NoError(t, err)
	require.Equal(t, again, twice)
}

func TestJSONComesBackAsItWas(t *testing.T) {
	run := sample()
	again, err := Read(context.Background(), strings.NewReader(write(t, "json", run)))
	require.NoError(t, err)
	require.Equal(t, run, again)
}

func TestReadTakesNothingElse(t *testing.T) {
	const result = `{"name":"n","file":"f","line":1,"engine":"e","seed":1,"status":"passed","started":"2026-03-04T05:06:07Z","elapsed_ns":1,`
	for text, reason := range map[string]string{
		``:                           "it ends too early",
		`{"results":[`:               "it ends too early",
		`null`:                       "it is empty",
		`{} {}`:                      "something follows it",
		`{"colour":1}`:               `unknown field "colour"`,
		`{"results":[{"colour":1}]}`: `unknown field "colour"`,
		`{"results":[{"seed":-1}]}`:  "seed",
		`{"results":[{"name":"n"}]}`: `result 1 ("n"): no status ""`,
		`{"results":[{"name":"n","status":"great"}]}`:                         `no status "great"`,
		`{"results":[{"status":"passed"}]}`:                                   "it has no name",
		`{"results":[{"name":"n","status":"passed","line":-1}]}`:              "a number is negative",
		`{"results":[` + result + `"steps":[{"status":"great"}]}]}`:           `step 1: no status "great"`,
		`{"results":[` + result + `"steps":[{"status":"error","line":-1}]}]}`: "step 1: a number is negative",
		`{"results":[` + result + `"trace":[{"kind":"great"}]}]}`:             `entry 1: no kind "great"`,
		`{"results":[` + result + `"trace":[{"kind":"note","at_ns":-1}]}]}`:   "entry 1: a number is negative",
	} {
		_, err := Read(context.Background(), strings.NewReader(text))
		require.ErrorContains(t, err, "not a JSON report of nesim: ", text)
		require.ErrorContains(t, err, reason, text)
	}
}

func FuzzRead(f *testing.F) {
	for _, run := range []*trace.Run{{}, sample(), saying(hostile)} {
		f.Add([]byte(write(f, "json", run)))
	}
	f.Add([]byte(`{"results":[{"name":"n","status":"great"}]} {`))
	f.Fuzz(func(t *testing.T, data []byte) {
		run, err := Read(context.Background(), strings.NewReader(string(data)))
		if err != nil {
			require.NotContains(t, err.Error(), "\n")
			return
		}
		for _, format := range Formats() {
			wellFormed[format](t, write(t, format, run), run)
		}
	})
}

var htmlData = regexp.MustCompile(`(?s)<script type="application/json" id="data">(.*?)</script>\n<script>\n`)

// requireHTML checks that the page has its two scripts only, and its data in the first.
func requireHTML(t testing.TB, text string, run *trace.Run) {
	require.True(t, utf8.ValidString(text))
	lower := strings.ToLower(text)
	require.Equal(t, 2, strings.Count(lower, "<script"))
	require.Equal(t, 2, strings.Count(lower, "</script"))
	require.NotContains(t, lower, "<!--")
	match := htmlData.FindStringSubmatch(text)
	require.NotNil(t, match)
	require.NotRegexp(t, "[<>\x00-\x1f]", match[1])
	var data struct {
		Results []struct {
			Name   string
			Seed   string // as JavaScript's numbers cannot hold it
			Status trace.Status
			Trace  []json.RawMessage
		}
	}
	require.NoError(t, json.Unmarshal([]byte(match[1]), &data))
	require.Len(t, data.Results, len(run.Results))
	for i, r := range run.Results {
		require.Equal(t, strconv.FormatUint(r.Seed, 10), data.Results[i].Seed)
		require.Equal(t, r.Status, data.Results[i].Status)
		require.Len(t, data.Results[i].Trace, len(r.Entries))
		require.Equal(t, []rune(r.Name), []rune(data.Results[i].Name)) // bytes that are no UTF-8 become U+FFFD
	}
}
