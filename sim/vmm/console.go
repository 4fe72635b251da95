package vmm

import (
	"bytes"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

const (
	historySize  = 256 << 10       // bytes of console text kept for those who attach late
	followerSize = 256 << 10       // bytes that a slow follower may lag behind; past that its oldest text is dropped
	lastRead     = 5 * time.Second // for followers to read the rest once the console has ended
)

// console takes an enclave's serial output and hands it to any number of followers. Writing never blocks: the guest
// goes on however slow a reader is. The zero value is ready; its lock is a leaf.
type console struct {
	mu        sync.Mutex
	history   tailBuffer
	followers map[*follower]struct{}
	closed    bool
}

// Write implements io.Writer and never fails.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.history.write(p, historySize)
	for f := range c.followers {
		f.pending.write(p, followerSize)
		f.wake()
	}
	return len(p), nil
}

// close lets each follower end once it has read the rest, for which it has a while.
func (c *console) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for f := range c.followers {
		_ = f.conn.SetWriteDeadline(time.Now().Add(lastRead))
		f.wake()
	}
}

// text returns the newest of what was written.
func (c *console) text() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Clone(c.history.data)
}

// lastLines gives at most n of the last lines, for an error that says why an enclave did not start.
func (c *console) lastLines(n int) []string {
	lines := strings.FieldsFunc(string(c.text()), func(r rune) bool { return r == '\n' || r == '\r' })
	return lines[max(0, len(lines)-n):]
}

// serve hands the console to every connection that the listener accepts, from the oldest text kept, until the
// listener is closed; it returns when the last follower has ended.
func (c *console) serve(listener net.Listener) {
	var all sync.WaitGroup
	defer all.Wait()
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		f := c.follow(conn)
		all.Go(func() {
			c.copyTo(f)
			c.leave(f)
		})
	}
}

// follower is one reader of the console; its fields are guarded by the console's lock.
type follower struct {
	conn    net.Conn
	pending tailBuffer
	ready   chan struct{} // has a token when there is text, or the end, to look at
}

func (f *follower) wake() {
	select {
	case f.ready <- struct{}{}:
	default:
	}
}

func (c *console) follow(conn net.Conn) *follower {
	f := &follower{conn: conn, ready: make(chan struct{}, 1)}
	c.mu.Lock()
	defer c.mu.Unlock()
	f.pending.write(c.history.data, followerSize)
	f.wake()
	if c.closed {
		_ = conn.SetWriteDeadline(time.Now().Add(lastRead))
	}
	if c.followers == nil {
		c.followers = make(map[*follower]struct{})
	}
	c.followers[f] = struct{}{}
	return f
}

func (c *console) leave(f *follower) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.followers, f)
}

// copyTo writes the follower's text to its connection until the console or the connection ends. What the peer sends
// is read only for its end: the console has no input.
func (c *console) copyTo(f *follower) {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = io.Copy(io.Discard, f.conn)
	}()
	defer func() { f.conn.Close(); <-gone }()
	for {
		select {
		case <-f.ready:
		case <-gone:
			return
		}
		c.mu.Lock()
		text, last := f.pending.data, c.closed
		f.pending = tailBuffer{}
		c.mu.Unlock()
		if len(text) > 0 {
			if _, err := f.conn.Write(text); err != nil {
				return
			}
		}
		if last {
			return
		}
	}
}

// tailBuffer keeps the newest bytes written to it, whole lines where it can.
type tailBuffer struct{ data []byte }

func (b *tailBuffer) write(p []byte, size int) {
	b.data = append(b.data, p...)
	if len(b.data) <= size {
		return
	}
	// Cutting a quarter more than needed keeps the cost of a flood low.
	cut := b.data[len(b.data)-size*3/4:]
	if i := bytes.IndexByte(cut, '\n'); i >= 0 && i < size/4 {
		cut = cut[i+1:]
	}
	b.data = append(b.data[:0:0], cut...)
}
