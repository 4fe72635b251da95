package vhostuser

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// flushEvery is how many chains are given back at most before the driver is told.
const flushEvery = 32

// Queue is one running virtqueue. It lives from Device.StartQueue to
// Device.StopQueue; a queue that is started again is a new Queue.
type Queue struct {
	index    int
	start    uint16
	features uint64
	dev      Device
	kick     *os.File // our own duplicate; closed by loop
	done     chan struct{}
	stopping atomic.Bool

	mu        sync.Mutex // what follows; held while the device processes the queue
	mem       *memory
	ring      ring
	callFD    int // the session's; -1 is none
	errFD     int // likewise
	next      uint16
	avail     uint16 // the driver's index when last read
	used      uint16 // our index
	published uint16 // the part of it that the driver can see
	signalled uint16 // its value when last deciding on a call
	called    bool   // signalled is valid
	starved   bool   // the device wanted more than there was
	running   bool
	err       error // why the queue broke
}

// Index is the queue's number in its device.
func (q *Queue) Index() int { return q.index }

// Start is the index in the available ring at which this run of the queue began:
// zero for a driver that has just set the queue up.
func (q *Queue) Start() uint16 { return q.start }

// Features returns the features that the driver has accepted.
func (q *Queue) Features() uint64 { return q.features }

// Run lets the device process the queue on the calling goroutine, as a kick would:
// for a device that has something new to put into buffers which the driver made
// available before. It does nothing once the queue has stopped.
func (q *Queue) Run() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.running {
		return
	}
	q.setNotify(false)
	for q.processed() && q.starved && q.setNotify(true) {
		q.setNotify(false)
	}
}

// processed runs the device once and reports whether the queue is still whole.
func (q *Queue) processed() bool {
	q.starved = false
	err := q.dev.Process(q)
	q.flush()
	if q.err == nil && err != nil {
		q.err = err
	}
	if q.err != nil {
		q.fail()
	}
	return q.err == nil
}

// Next fetches the next chain into c. It returns false when there is none, or
// when the queue has broken. Call it only inside Process.
func (q *Queue) Next(c *Chain) bool {
	if q.err != nil || q.stopping.Load() {
		return false
	}
	if q.next == q.avail && !q.look() {
		q.starved = q.err == nil
		return false
	}
	if err := q.walk(c, q.ring.availHead(q.next)); err != nil {
		q.err = fmt.Errorf("chain %d: %w", q.next, err)
		return false
	}
	q.next++
	return true
}

// look reads the driver's index and reports whether there are chains to take.
func (q *Queue) look() bool {
	q.avail = q.ring.availIdx()
	n := q.avail - q.next
	if n > q.ring.num {
		q.err = fmt.Errorf("available index jumped by %d in a ring of %d", n, q.ring.num)
	}
	return n > 0 && q.err == nil
}

// walk follows a chain of descriptors from its head.
func (q *Queue) walk(c *Chain, head uint16) error {
	c.reset(head)
	last, err := q.walkTable(c, q.ring.desc, head, false)
	if err != nil || last.flags&descIndirect == 0 {
		return err
	}
	switch {
	case q.features&FeatureIndirectDesc == 0:
		return errIndirectFeature
	case last.flags&descNext != 0:
		return errIndirectNext
	case last.len == 0 || last.len%descSize != 0 || last.len > maxChain*descSize:
		return errIndirectSize
	}
	table := q.mem.guestRange(last.addr, uint64(last.len))
	if len(table) < int(last.len) || !aligned(table, 8) {
		return errChainMemory
	}
	_, err = q.walkTable(c, table, 0, true)
	return err
}

// walkTable adds the chain that begins at i in table to c. It stops behind the
// chain's last descriptor or at an indirect one, and returns that.
func (q *Queue) walkTable(c *Chain, table []byte, i uint16, indirect bool) (descriptor, error) {
	for n := len(table) / descSize; n > 0; n-- {
		if int(i) >= len(table)/descSize {
			return descriptor{}, errChainIndex
		}
		d := loadDescriptor(table, i)
		if d.flags&descIndirect != 0 {
			if indirect {
				return d, errIndirectNested
			}
			return d, nil
		}
		if c.count++; c.count > maxChain {
			return d, errChainLoop
		}
		if err := c.add(q.mem, d); err != nil || d.flags&descNext == 0 {
			return d, err
		}
		i = d.next
	}
	return descriptor{}, errChainLoop
}

// Push gives c back to the driver, with n bytes written into it. Call it only
// inside Process, once for each chain from Next.
func (q *Queue) Push(c *Chain, n int) {
	q.ring.setUsed(q.used, c.head, uint32(n))
	q.used++
	if q.used-q.published >= flushEvery {
		q.flush()
	}
}

// flush shows the driver what was pushed, and calls it if it asked for that.
func (q *Queue) flush() {
	if q.used == q.published {
		return
	}
	q.published = q.used
	q.ring.publish(q.usedFlags(true), q.used)
	if q.wantsCall() {
		signal(q.callFD)
	}
	q.signalled, q.called = q.used, true
}

func (q *Queue) eventIdx() bool { return q.features&FeatureEventIdx != 0 }

// wantsCall reports whether the driver wants to hear of what was just published
// (virtio 1.2, sections 2.7.7 and 2.7.10).
func (q *Queue) wantsCall() bool {
	if !q.eventIdx() {
		return q.ring.availFlags()&availNoInterrupt == 0
	}
	since := q.used - q.signalled
	return !q.called || q.used-q.ring.usedEvent()-1 < since
}

func (q *Queue) usedFlags(busy bool) uint16 {
	if busy && !q.eventIdx() {
		return usedNoNotify
	}
	return 0
}

// setNotify asks the driver to kick for its next chain, or not to bother while
// the queue is being processed. Having asked, it reports whether one has come in
// already: that one may not have been kicked for.
func (q *Queue) setNotify(on bool) bool {
	if q.eventIdx() {
		if !on {
			return false // the event index is behind: there will be no kick
		}
		q.ring.setAvailEvent(q.next)
	}
	q.ring.publish(q.usedFlags(!on), q.published)
	return on && q.ring.availIdx() != q.next
}

// hasWork reports whether a starved queue has got something.
func (q *Queue) hasWork() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return !q.running || q.starved && q.ring.availIdx() != q.next
}

// launch tells the device and starts waiting for kicks.
func (q *Queue) launch() {
	q.dev.StartQueue(q)
	go q.loop()
}

// loop processes the queue at every kick until it is stopped or breaks.
func (q *Queue) loop() {
	defer close(q.done)
	defer q.kick.Close()
	// The runtime's poller watches for edges, so the eventfd's counter is never
	// read. An edge seen before Read began to wait is forgotten, which hasWork
	// makes good: the driver writes its index before it kicks.
	raw, err := q.kick.SyscallConn()
	for err == nil && !q.stopping.Load() {
		q.Run()
		err = raw.Read(func(uintptr) bool { return q.hasWork() })
	}
	q.mu.Lock()
	q.running = false
	if q.err == nil && err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		q.err = fmt.Errorf("wait for a kick: %w", err)
	}
	err = q.err
	q.mu.Unlock()
	if err != nil {
		err = fmt.Errorf("queue %d: %w", q.index, err)
	}
	q.dev.StopQueue(q, err)
}

// fail stops a broken queue for good and tells the front end.
func (q *Queue) fail() {
	q.running = false
	signal(q.errFD)
	q.interrupt()
}

func (q *Queue) interrupt() {
	q.stopping.Store(true)
	q.kick.SetReadDeadline(time.Unix(1, 0))
}

// stop ends the queue and returns the index at which it can go on.
func (q *Queue) stop() uint16 {
	q.interrupt()
	<-q.done
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.next
}

// remap moves a running queue to a new memory table. A broken one lets go of the
// old.
func (q *Queue) remap(m *memory, at ringAddr) {
	q.mu.Lock()
	defer q.mu.Unlock()
	num := q.ring.num
	q.mem, q.ring = nil, ring{}
	if !q.running {
		return
	}
	r, err := mapRing(m, num, at, q.eventIdx())
	if err != nil {
		q.err = err
		q.fail()
		return
	}
	q.mem, q.ring = m, r
}

// setCall and setErr change the eventfds of a running queue.
func (q *Queue) setCall(fd int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.callFD = fd
}

func (q *Queue) setErr(fd int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.errFD = fd
}

// signal raises an eventfd. It cannot block: the session made sure of that.
func signal(fd int) {
	if fd < 0 {
		return
	}
	one := [8]byte{1}
	for {
		if _, err := unix.Write(fd, one[:]); err != syscall.EINTR {
			return
		}
	}
}
