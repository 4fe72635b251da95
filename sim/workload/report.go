// Package workload is the report in which the init that nesim packs says how an enclave's workload ended: the last line
// that it writes to the console. Hardware has a console too, and nothing listens for more; an image with another init
// writes no such line, and nothing is known of its workload. A hostile guest can write it, and lies about itself alone.
package workload

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Report is how a workload ended.
type Report struct {
	Code   int    // exit code, 0 to 255, if no signal killed it and Error is empty
	Signal int    // the signal that killed it, 1 to 64, or 0
	Error  string // why init could not start it, or could not go on
}

// Of returns the report on a process that has ended.
func Of(status unix.WaitStatus) Report {
	if status.Signaled() {
		return Report{Signal: int(status.Signal())}
	}
	return Report{Code: status.ExitStatus()}
}

// String describes the end in a few words for people.
func (r Report) String() string {
	switch {
	case r.Error != "":
		return "init failed: " + r.Error
	case r.Signal != 0:
		return fmt.Sprintf("workload killed by signal %d (%s)", r.Signal, SignalName(r.Signal))
	}
	return fmt.Sprintf("workload exited with code %d", r.Code)
}

// SignalName returns a signal's name, as SIGKILL; for one without, its number.
func SignalName(signal int) string {
	if name := unix.SignalName(unix.Signal(signal)); name != "" {
		return name
	}
	return strconv.Itoa(signal)
}

// Line is the report as init writes it, without its newline.
func (r Report) Line() string {
	if r.Error != "" {
		return "init: error: " + r.Error
	}
	return "init: " + r.String() + "; powering off"
}

const (
	maxTail  = 4 << 10 // bytes of console text in which the report is looked for
	maxLines = 16      // lines, of which the kernel writes some after it
	maxError = 512     // bytes of an Error
)

// Find returns the report in the last lines of an enclave's console.
func Find(console []byte) (Report, bool) {
	lines := strings.Split(string(console[max(0, len(console)-maxTail):]), "\n")
	for n := len(lines) - 1; n >= max(0, len(lines)-maxLines); n-- {
		if r, ok := parse(strings.TrimRight(lines[n], "\r")); ok {
			return r, true
		}
	}
	return Report{}, false
}

// parse reads a line. The workload may have left the cursor anywhere in it, and is silent while init reports an error.
func parse(line string) (Report, bool) {
	if text, ok := strings.CutPrefix(line, "init: error: "); ok {
		text = strings.TrimRight(text[:min(len(text), maxError)], "\r")
		return Report{Error: text}, text != ""
	}
	at := strings.LastIndex(line, "init: workload ")
	if at < 0 {
		return Report{}, false
	}
	text, ok := strings.CutSuffix(line[at+len("init: workload "):], "; powering off")
	if number, exited := strings.CutPrefix(text, "exited with code "); exited {
		code, err := strconv.ParseUint(number, 10, 8)
		return Report{Code: int(code)}, ok && err == nil
	}
	text, killed := strings.CutPrefix(text, "killed by signal ")
	number, name, _ := strings.Cut(text, " ")
	signal, err := strconv.ParseUint(number, 10, 8)
	ok = ok && killed && err == nil && signal >= 1 && signal <= 64 && strings.HasPrefix(name, "(") && strings.HasSuffix(name, ")")
	return Report{Signal: int(signal)}, ok
}
