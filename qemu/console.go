package qemu

import (
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	// relaySize bounds the console text that waits for a slow writer, in bytes.
	relaySize = 1 << 20
	// drainTime is how long the writer may take for the last of it after the machine's end.
	drainTime = 5 * time.Second
)

// A relay takes console text without ever blocking and hands it to a writer in its own time.
// What does not fit is dropped, oldest first, with a line saying how much.
type relay struct {
	w     io.Writer
	words *lastWords
	done  chan struct{} // closed when run has ended

	mu      sync.Mutex
	more    sync.Cond
	buf     []byte
	dropped int
	ended   bool
}

// newRelay starts a relay to w; close ends it.
func newRelay(w io.Writer) *relay {
	if w == nil {
		w = io.Discard
	}
	r := &relay{w: w, words: newLastWords(), done: make(chan struct{})}
	r.more.L = &r.mu
	go r.run()
	return r
}

// Write never blocks and never fails.
func (r *relay) Write(p []byte) (int, error) {
	r.words.read(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.buf = append(r.buf, p...)
	if over := len(r.buf) - relaySize; over > 0 {
		r.dropped += over
		r.buf = append(r.buf[:0], r.buf[over:]...)
	}
	r.more.Signal()
	return len(p), nil
}

func (r *relay) run() {
	defer close(r.done)
	for {
		r.mu.Lock()
		for len(r.buf) == 0 && !r.ended {
			r.more.Wait()
		}
		text, dropped := r.buf, r.dropped
		r.buf, r.dropped = nil, 0
		r.mu.Unlock()
		if len(text) == 0 {
			return
		}
		if dropped > 0 {
			fmt.Fprintf(r.w, "\n[nesim: %d bytes of console text dropped]\n", dropped)
		}
		_, _ = r.w.Write(text) // a writer that is gone must not end the guest
	}
}

// close lets the writer take what is left, for drainTime at most.
func (r *relay) close() {
	r.mu.Lock()
	r.ended = true
	r.more.Signal()
	r.mu.Unlock()
	select {
	case <-r.done:
	case <-time.After(drainTime):
	}
}
