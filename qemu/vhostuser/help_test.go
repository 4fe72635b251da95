package vhostuser_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/nesim/nesim/qemu/vhostuser"
	"github.com/nesim/nesim/qemu/vhostuser/vhosttest"
)

// echo is a device that writes what it reads into the same chain.
type echo struct {
	config []byte
	gate   func() bool // nil, or whether chains are taken

	mu           sync.Mutex
	queues       map[int]*vhostuser.Queue
	disconnected int
	chain        [2]vhostuser.Chain
	stopped      chan error // what StopQueue got
}

var errPoison = errors.New("poisoned")

func newEcho() *echo {
	return &echo{queues: map[int]*vhostuser.Queue{}, stopped: make(chan error, 100)}
}

func (e *echo) Info() vhostuser.Info { return vhostuser.Info{Features: 1, Queues: 2, Config: e.config} }

func (e *echo) StartQueue(q *vhostuser.Queue) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.queues[q.Index()] = q
}

func (e *echo) StopQueue(q *vhostuser.Queue, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.queues, q.Index())
	select {
	case e.stopped <- err:
	default: // nobody has asked for so long
	}
}

func (e *echo) Disconnected() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.disconnected++
}

func (e *echo) queue(i int) *vhostuser.Queue {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.queues[i]
}

func (e *echo) Process(q *vhostuser.Queue) error {
	c := &e.chain[q.Index()]
	var b [256]byte
	for (e.gate == nil || e.gate()) && q.Next(c) {
		n := 0
		for {
			got := c.Read(b[:])
			if got == 0 {
				break
			}
			if string(b[:got]) == "poison" {
				return errPoison
			}
			n += c.Write(b[:got])
		}
		q.Push(c, n)
	}
	return nil
}

// serve serves dev to a new front end. The session's result can be read from the
// channel; the test checks that it ends.
func serve(t testing.TB, dev vhostuser.Device) (*vhosttest.FrontEnd, <-chan error) {
	return serveMemory(t, dev, 1<<20)
}

// serveMemory is serve with a guest that has so many bytes of memory.
func serveMemory(t testing.TB, dev vhostuser.Device, size int) (*vhosttest.FrontEnd, <-chan error) {
	front, back := vhosttest.Pair(t)
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		done <- vhostuser.ServeConn(ctx, back, dev)
		close(done)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return vhosttest.New(t, front, size), done
}

const allFeatures = vhostuser.FeatureVersion1 | vhostuser.FeatureEventIdx | vhostuser.FeatureIndirectDesc | 1

// request lays out "b to read, then room for n bytes" at descriptor i and i+1, and
// returns the room.
func request(f *vhosttest.FrontEnd, r *vhosttest.Ring, i int, b string, n int) []byte {
	out, outAddr := f.Alloc(max(len(b), 1))
	copy(out, b)
	in, inAddr := f.Alloc(n)
	r.SetDesc(i, outAddr, uint32(len(b)), vhosttest.DescNext, uint16(i+1))
	r.SetDesc(i+1, inAddr, uint32(n), vhosttest.DescWrite, 0)
	return in
}
