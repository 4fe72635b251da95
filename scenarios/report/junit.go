package report

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/nesim/nesim/scenarios/trace"
)

// The elements of JUnit's XML, as Ant's junitreport brought them up and Jenkins, GitLab and others read them. There is
// a suite for each file of scenarios.
type (
	junitSuites struct {
		XMLName xml.Name `xml:"testsuites"`
		Name    string   `xml:"name,attr"`
		junitCounts
		Suites []*junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name      string `xml:"name,attr"`
		Timestamp string `xml:"timestamp,attr"` // UTC, without a zone
		junitCounts
		Cases []junitCase `xml:"testcase"`
	}
	junitCounts struct {
		Tests    int     `xml:"tests,attr"`
		Failures int     `xml:"failures,attr"`
		Errors   int     `xml:"errors,attr"`
		Skipped  int     `xml:"skipped,attr"`
		Time     seconds `xml:"time,attr"`
	}
	junitCase struct {
		Name       string          `xml:"name,attr"`
		Class      string          `xml:"classname,attr"`
		File       string          `xml:"file,attr"`
		Line       int             `xml:"line,attr"`
		Time       seconds         `xml:"time,attr"`
		Properties []junitProperty `xml:"properties>property"`
		Failure    *junitProblem   `xml:"failure"`
		Error      *junitProblem   `xml:"error"`
		Skipped    *junitProblem   `xml:"skipped"`
	}
	junitProperty struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	}
	junitProblem struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr,omitempty"`
		Text    string `xml:",chardata"`
	}
)

// seconds is written with a fraction, never with an exponent.
type seconds time.Duration

func (s seconds) MarshalText() ([]byte, error) {
	return fmt.Appendf(nil, "%.6f", time.Duration(s).Seconds()), nil
}

func writeJUnit(w io.Writer, run *trace.Run) error {
	all := junitSuites{Name: "nesim"}
	suites := map[string]*junitSuite{}
	for i := range run.Results {
		r := &run.Results[i]
		suite := suites[r.File]
		if suite == nil {
			suite = &junitSuite{Name: printable(r.File), Timestamp: r.Started.UTC().Format("2006-01-02T15:04:05")}
			suites[r.File] = suite
			all.Suites = append(all.Suites, suite)
		}
		suite.Cases = append(suite.Cases, junitOf(r))
		suite.count(r)
		all.count(r)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(all); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func (c *junitCounts) count(r *trace.Result) {
	c.Tests++
	c.Time += seconds(r.Elapsed)
	switch r.Status {
	case trace.Failed:
		c.Failures++
	case trace.Broken:
		c.Errors++
	case trace.Skipped:
		c.Skipped++
	}
}

func junitOf(r *trace.Result) junitCase {
	c := junitCase{
		Name: printable(r.Name), Class: printable(r.File), File: printable(r.File), Line: r.Line, Time: seconds(r.Elapsed),
		Properties: []junitProperty{{"engine", printable(r.Engine)}, {"seed", fmt.Sprint(r.Seed)}},
	}
	if len(r.Tags) > 0 {
		c.Properties = append(c.Properties, junitProperty{"tags", printable(strings.Join(r.Tags, ","))})
	}
	for i := range r.Faults {
		name := "fault"
		if r.Faults[i].Struck == 0 {
			name = "warning"
		}
		c.Properties = append(c.Properties, junitProperty{name, struck(&r.Faults[i])})
	}
	switch r.Status {
	case trace.Failed:
		c.Failure = junitProblemOf(r, "expectation")
	case trace.Broken:
		c.Error = junitProblemOf(r, "stage")
	case trace.Skipped:
		c.Skipped = &junitProblem{Message: reason(r)}
	}
	return c
}

func junitProblemOf(r *trace.Result, kind string) *junitProblem {
	file, n := where(r)
	text := place(file, n) + ": " + reason(r) + "\n" + strings.Join(story(r), "\n") + "\n"
	return &junitProblem{Message: reason(r), Type: kind, Text: text}
}
