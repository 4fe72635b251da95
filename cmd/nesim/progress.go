package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
)

// progressInterval is the least time between two progress lines.
const progressInterval = 100 * time.Millisecond

// progress writes to standard error: lines that stay, and on a terminal one that shows how far a step is. Any goroutine
// may use it.
type progress struct {
	w        io.Writer
	terminal bool

	mu    sync.Mutex // guards what follows, and the writing
	shown time.Time  // when the progress line was written; zero where there is none
}

func newProgress(w io.Writer) *progress { return &progress{w: w, terminal: isTerminal(w)} }

// show shows that done of total bytes of a step are done. A total that is too small is not printed.
func (p *progress) show(step string, done, total int64) {
	if !p.terminal {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.shown) < progressInterval {
		return
	}
	p.shown = time.Now()
	of := ""
	if total >= done && total > 0 {
		of = fmt.Sprintf(" of %s", humanize.IBytes(uint64(total)))
	}
	fmt.Fprintf(p.w, "\r\x1b[K%s: %s%s", step, humanize.IBytes(uint64(done)), of)
}

// say writes a line that stays.
func (p *progress) say(line string) { fmt.Fprintln(p, line) }

// Write writes text that stays.
func (p *progress) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	return p.w.Write(text)
}

// end removes the progress line.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
}

// clear removes the progress line. The caller has the lock.
func (p *progress) clear() {
	if !p.shown.IsZero() {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = time.Time{}
	}
}
