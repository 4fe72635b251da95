package report

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"html/template"
	"io"

	"github.com/nesim/nesim/scenarios/trace"
)

var (
	//go:embed timeline.html
	timelineHTML string
	//go:embed timeline.css
	timelineCSS string
	//go:embed timeline.js
	timelineJS string

	timeline = template.Must(template.New("timeline").Parse(timelineHTML))
)

// writeHTML writes a page that needs nothing else. Its data is JSON with <, > and & escaped, in a block that browsers
// do not run; its policy (Content Security Policy) lets it run its own script only, and fetch nothing.
func writeHTML(w io.Writer, run *trace.Run) error {
	// JavaScript's numbers cannot hold a seed's 64 bits: the page has it as a string.
	type result struct {
		trace.Result
		Seed uint64 `json:"seed,string"`
	}
	page := struct {
		trace.Run
		Results []result `json:"results"`
	}{Run: *run}
	for _, r := range run.Results {
		page.Results = append(page.Results, result{r, r.Seed})
	}
	data, err := json.Marshal(page)
	if err != nil {
		return err
	}
	script := "\n" + timelineJS
	sum := sha256.Sum256([]byte(script))
	return timeline.Execute(w, map[string]any{
		"Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; script-src 'sha256-" +
			base64.StdEncoding.EncodeToString(sum[:]) + "'",
		"Title":  "nesim scenarios: " + counts(run),
		"Style":  template.CSS(timelineCSS),
		"Script": template.JS(script),
		"Data":   template.JS(data),
	})
}
