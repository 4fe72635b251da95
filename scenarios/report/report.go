// Package report presents how a run of scenarios went: to people on a terminal, to what reads test results, and as a
// timeline to look around in.
//
// Names, errors and above all traces hold what enclaves said, so all of it is hostile: each format escapes it, and
// nothing of it can steer a terminal, a CI system or a browser. Nothing here starts goroutines; a Live is for one
// goroutine at a time.
package report

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/nesim/nesim/scenarios/trace"
)

var formats = []struct {
	name  string
	write func(w io.Writer, run *trace.Run) error
}{
	{"github", writeGitHub},
	{"html", writeHTML},
	{"json", writeJSON},
	{"junit", writeJUnit},
	{"tap", writeTAP},
}

// Formats lists the formats that Write knows.
func Formats() (names []string) {
	for _, f := range formats {
		names = append(names, f.name)
	}
	return names
}

// Write writes a run in one of the Formats.
func Write(format string, w io.Writer, run *trace.Run) error {
	for _, f := range formats {
		if f.name != format {
			continue
		}
		buffered := bufio.NewWriter(w)
		if err := f.write(buffered, run); err != nil {
			return fmt.Errorf("write the %s report: %w", format, err)
		}
		if err := buffered.Flush(); err != nil {
			return fmt.Errorf("write the %s report: %w", format, err)
		}
		return nil
	}
	return fmt.Errorf("no report format %q: choose %s", format, strings.Join(Formats(), ", "))
}
