package report

import (
	"io"
	"strings"

	"github.com/nesim/nesim/scenarios/trace"
)

// What a workflow command of GitHub Actions escapes in its message, and in its properties
// (docs.github.com, "Workflow commands for GitHub Actions"; the escapes are those of its toolkit).
var (
	githubMessage  = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	githubProperty = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
)

// writeGitHub writes annotations, and what happened in foldable groups. Elsewhere in a line only "##[" and at its
// beginning only "::" would be commands to the runner: the first is broken up, and no line of a group begins with
// what an enclave said.
func writeGitHub(w io.Writer, run *trace.Run) error {
	p := &lines{w: w}
	for i := range run.Results {
		r := &run.Results[i]
		for _, f := range r.Idle() {
			p.printf("::warning file=%s,line=%d,title=%s::%s\n", githubProperty.Replace(harmless(printable(f.File))), max(f.Line, 1),
				githubProperty.Replace(harmless(printable(r.Name))), githubMessage.Replace(harmless(struck(&f))))
		}
		if r.Status != trace.Failed && r.Status != trace.Broken {
			continue
		}
		file, line := where(r)
		p.printf("::error file=%s,line=%d,title=%s::%s\n", githubProperty.Replace(harmless(printable(file))), max(line, 1),
			githubProperty.Replace(harmless(printable(r.Name))), githubMessage.Replace(harmless(reason(r))))
		p.printf("::group::%s\n", githubMessage.Replace(harmless(printable(r.Name))))
		p.printf("engine %s, seed %d\n", harmless(printable(r.Engine)), r.Seed)
		for _, line := range story(r) {
			p.printf("| %s\n", harmless(line))
		}
		p.printf("::endgroup::\n")
	}
	p.printf("%s\n", harmless(counts(run)))
	return p.err
}

func harmless(text string) string { return strings.ReplaceAll(text, "#[", "# [") }
