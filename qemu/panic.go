package qemu

import (
	"bytes"
	"regexp"
	"sync"
)

// What a Linux kernel prints when it panics (kernel/panic.c), at the start of a line after the
// optional level and time stamp. The second comes only from a kernel that has no panic=N and now spins
// for ever, and no newline follows it.
var (
	panicLine = regexp.MustCompile(`^(?:<\d+>)?(?:\[[^\]]{1,32}\] ?)?Kernel panic - not syncing: ?(.*)`)
	spinLine  = regexp.MustCompile(`^(?:<\d+>)?(?:\[[^\]]{1,32}\] ?)?---\[ end Kernel panic - not syncing.*\]---`)
)

// lastWords reads the console for what QMP cannot tell of a guest without a pvpanic driver: that its
// kernel panicked, why, and whether it will ever reboot. The guest can feign it, and hurts only itself.
type lastWords struct {
	spins chan struct{} // closed when the kernel says that it spins for ever

	mu    sync.Mutex
	line  []byte
	why   string
	spun  bool
	found bool
}

func newLastWords() *lastWords { return &lastWords{spins: make(chan struct{})} }

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
		l.line = l.line[:0]
	}
	l.judge()
}

// judge looks at the line so far; l.mu is held.
func (l *lastWords) judge() {
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
	return l.why, l.found
}
