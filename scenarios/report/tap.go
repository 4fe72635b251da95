package report

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/nesim/nesim/scenarios/trace"
)

// tapName escapes what TAP 14 gives a meaning in a description.
var tapName = strings.NewReplacer(`\`, `\\`, `#`, `\#`)

// writeTAP writes the Test Anything Protocol, version 14 (testanything.org), with a YAML block a test.
func writeTAP(w io.Writer, run *trace.Run) error {
	p := &lines{w: w}
	p.printf("TAP version 14\n1..%d\n", len(run.Results))
	for i := range run.Results {
		tapTest(p, i+1, &run.Results[i])
	}
	return p.err
}

func tapTest(p *lines, n int, r *trace.Result) {
	point := "ok"
	if r.Status == trace.Failed || r.Status == trace.Broken {
		point = "not ok"
	}
	p.printf("%s %d - %s", point, n, tapName.Replace(printable(r.Name)))
	if r.Status == trace.Skipped {
		p.printf(" # SKIP %s", tapName.Replace(reason(r)))
	}
	p.printf("\n  ---\n")
	file, line := where(r)
	if point == "not ok" {
		p.printf("  message: %s\n  severity: %s\n", yamlText(reason(r)), map[bool]string{true: "fail", false: "error"}[r.Status == trace.Failed])
	}
	p.printf("  at:\n    file: %s\n    line: %d\n", yamlText(file), line)
	p.printf("  engine: %s\n  seed: %d\n  duration_ms: %.3f\n", yamlText(r.Engine), r.Seed, float64(r.Elapsed)/float64(time.Millisecond))
	if len(r.Faults) > 0 {
		p.printf("  faults:\n")
		for i := range r.Faults {
			p.printf("    - %s\n", yamlText(struck(&r.Faults[i])))
		}
	}
	if point == "not ok" {
		p.printf("  story:\n")
		for _, line := range story(r) {
			p.printf("    - %s\n", yamlText(line))
		}
	}
	p.printf("  ...\n")
}

// yamlText is a double-quoted scalar: of YAML's escapes in it (section 5.7) Go's are a part.
func yamlText(text string) string { return strconv.Quote(printable(text)) }

// lines writes until the first error, which it keeps.
type lines struct {
	w   io.Writer
	err error
}

func (l *lines) printf(format string, args ...any) {
	if l.err == nil {
		_, l.err = fmt.Fprintf(l.w, format, args...)
	}
}
