package scripted

import (
	"io"
	"net"
	"sync"
	"time"

	"github.com/nesim/nesim/sim/vsock"
)

const (
	historySize = 256 << 10       // bytes of a console that are kept for those who connect late
	lastRead    = 5 * time.Second // for readers to read the rest of a console that has ended
)

// console is an enclave's serial console. Writing never blocks.
type console struct {
	also     io.Writer
	listener net.Listener // of a machine in debug mode
	readers  sync.WaitGroup

	mu      sync.Mutex
	changed *sync.Cond // text or closed
	text    []byte
	dropped int // bytes before text
	closed  bool
	conns   map[net.Conn]struct{}
}

// open makes the console of a machine in debug mode readable where real ones have it.
func (c *console) open(n Net, cid uint32, debug bool) (err error) {
	c.changed = sync.NewCond(&c.mu)
	if !debug {
		return nil
	}
	c.conns = make(map[net.Conn]struct{})
	c.listener, err = n.Listen(vsock.Addr{ContextID: vsock.CIDHypervisor, Port: cid + vsock.ConsolePortBase})
	if err == nil {
		c.readers.Go(c.accept)
	}
	return err
}

// Write implements io.Writer and never fails.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.text = append(c.text, p...)
	if over := len(c.text) - historySize; over > historySize/4 {
		c.text = append(c.text[:0], c.text[over:]...)
		c.dropped += over
	}
	c.changed.Broadcast()
	c.mu.Unlock()
	return c.also.Write(p)
}

// close ends the console. Its readers have a while to read the rest.
func (c *console) close() {
	c.mu.Lock()
	c.closed = true
	for conn := range c.conns {
		_ = conn.SetWriteDeadline(time.Now().Add(lastRead))
	}
	c.changed.Broadcast()
	c.mu.Unlock()
	if c.listener != nil {
		c.listener.Close()
	}
	c.readers.Wait()
}

func (c *console) accept() {
	for {
		conn, err := c.listener.Accept()
		if err != nil {
			return
		}
		c.mu.Lock()
		c.conns[conn] = struct{}{}
		if c.closed {
			_ = conn.SetWriteDeadline(time.Now().Add(lastRead))
		}
		c.mu.Unlock()
		c.readers.Go(func() {
			c.copyTo(conn)
			conn.Close()
			c.mu.Lock()
			delete(c.conns, conn)
			c.mu.Unlock()
		})
	}
}

func (c *console) copyTo(conn net.Conn) {
	for at := 0; ; {
		c.mu.Lock()
		for at >= c.dropped+len(c.text) && !c.closed {
			c.changed.Wait()
		}
		at = max(at, c.dropped)
		text := append([]byte(nil), c.text[at-c.dropped:]...)
		last := c.closed
		c.mu.Unlock()
		if _, err := conn.Write(text); err != nil || last {
			return
		}
		at += len(text)
	}
}
