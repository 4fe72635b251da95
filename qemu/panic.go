package qemu

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"sync"
)

// What a Linux kernel prints when it panics (kernel/panic.c), at the start of a line after the
// optional level and time stamp. At the end it spins for ever, with no newline behind spinLine, or, with panic=N, waits N
// seconds and reboots. execLine comes before the panic of a kernel without an init (init/main.c).
var (
	panicLine = regexp.MustCompile(`^(?:<\d+>)?(?:\[[^\]]{1,32}\] ?)?Kernel panic - not syncing: ?(.*)`)
	execLine  = regexp.MustCompile(`^(?:<\d+>)?(?:\[[^\]]{1,32}\] ?)?Failed to execute (\S{1,128}) \(error (-\d{1,3})\)`)
	spinLine  = regexp.MustCompile(`^(?:<\d+>)?(?:\[[^\]]{1,32}\] ?)?---\[ end Kernel panic - not syncing.*\]---`)
	waitLine  = regexp.MustCompile(`^(?:<\d+>)?(?:\[[^\]]{1,32}\] ?)?Rebooting in \d{1,10} seconds\.\.$`)
)

// haltLine is what a Linux kernel prints when it halts for good (kernel/reboot.c, kernel_halt; at level 0, so that no
// setting hides it). Without ACPI it does so also for a power-off.
var haltLine = regexp.MustCompile(`^(?:<\d+>)?(?:\[[^\]]{1,32}\] ?)?reboot: (?:System halted|Power off not available: System halted instead)$`)

// lastWords reads the console for what QMP cannot report of a guest without a pvpanic driver: that its
// kernel panicked, why, and that it has nothing more to say; and that it has halted. The guest can feign it, and hurts
// only itself.
type lastWords struct {
	spins chan struct{} // closed when a kernel that panicked says that it spins for ever, or waits to reboot
	halts chan struct{} // closed when the kernel says that it halts

	mu     sync.Mutex
	line   []byte
	why    string
	exec   string // the first program that could not be executed as init, and why
	spun   bool
	halted bool
	found  bool
}

func newLastWords() *lastWords {
	return &lastWords{spins: make(chan struct{}), halts: make(chan struct{})}
}

// read takes console text in any pieces.
func (l *lastWords) read(p []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range p {
		if c != '\n' {
			if len(l.line) < maxLine && c != '\r' {
				l.line = append(l.line, c)
			}
			continue
		}
		l.judge()
		if l.found && !l.spun && waitLine.Match(l.line) {
			l.spun = true
			close(l.spins)
		}
		if !l.halted && bytes.Contains(l.line, []byte("System halted")) && haltLine.Match(l.line) {
			l.halted = true
			close(l.halts)
		}
		l.line = l.line[:0]
	}
	l.judge()
}

// judge looks at the line so far; l.mu is held.
func (l *lastWords) judge() {
	if bytes.Contains(l.line, []byte("Failed to execute")) && l.exec == "" {
		if m := execLine.FindSubmatch(l.line); m != nil {
			l.exec = oneLine(fmt.Sprintf("Failed to execute %s (error %s%s)", m[1], m[2], execErrors[string(m[2])]))
		}
	}
	if !bytes.Contains(l.line, []byte("Kernel panic")) {
		return
	}
	if m := panicLine.FindSubmatch(l.line); m != nil {
		l.found, l.why = true, oneLine(string(m[1]))
	}
	if !l.spun && spinLine.Match(l.line) {
		l.spun = true
		close(l.spins)
	}
}

// panicked is whether the kernel said that it panics, and why.
func (l *lastWords) panicked() (why string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if text, _, none := strings.Cut(l.why, "No working init found"); none && l.exec != "" {
		return text + "No working init found: " + l.exec, l.found // the rest is advice for whoever boots the kernel by hand
	}
	return l.why, l.found
}

// execErrors explain the usual errors of execve(2), by their negated numbers.
var execErrors = map[string]string{
	"-2":  ": it, or the interpreter that it names, is missing from the ramdisk",
	"-8":  ": it is not a program for this kernel",
	"-13": ": it is not executable",
}
