package vsockdev

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"net"
	"os"
	"sync"
	"sync/atomic"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/qemu/vhostuser"
)

// The device's queues: virtio 1.2, section 5.10.2. The event queue carries only
// TRANSPORT_RESET, which QEMU sends by itself where it is needed.
const (
	queueRx = 0 // to the guest
	queueTx = 1 // from the guest
	queues  = 3
)

const (
	maxResets   = 4096 // RSTs waiting for a guest that gives no buffers
	turnPackets = 16   // a connection sends before the next one gets its turn
	pumpPackets = 64   // are received before what they have led to is sent
)

// Config describes a device.
type Config struct {
	CID uint32 // the guest's

	// Connect is asked about each connection that the guest wants to make to
	// c.LocalAddr(). If it returns nil, the connection stands and belongs to the
	// callee, who may have begun to use it; an error refuses it. ctx ends when the
	// guest gives up or is gone. Each call has a goroutine of its own. A nil
	// Connect refuses all.
	Connect func(ctx context.Context, c *Conn) error

	MaxConns   int // connections at once; 0 is 4096
	MaxPending int // calls of Connect at once; 0 is 128
}

// Device is a virtio-vsock device: a vhostuser.Device for its guest's driver, and
// the connections from and to the guest. It outlives its guest: another front end
// finds it as new.
type Device struct {
	config     Config
	ctx        context.Context // ends with Close
	cancel     context.CancelFunc
	connecting sync.WaitGroup

	rx               atomic.Pointer[vhostuser.Queue] // nil unless it runs
	rxChain, txChain vhostuser.Chain                 // each used only inside its queue's Process

	mu       sync.Mutex // guards the rest
	conns    map[key]*Conn
	senders  line[*Conn]
	resets   line[header]
	deciding int   // calls of Connect
	broken   error // why the guest's driver cannot go on
	closed   bool
}

var _ vhostuser.Device = (*Device)(nil)

// key tells a guest's connections apart.
type key struct {
	cid, port uint32 // our side
	guestPort uint32
}

// New makes a device. Its owner must Close it.
func New(config Config) *Device {
	if config.MaxConns == 0 {
		config.MaxConns = 4096
	}
	if config.MaxPending == 0 {
		config.MaxPending = 128
	}
	d := &Device{config: config, conns: make(map[key]*Conn)}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	return d
}

// Dial connects from src to a port of the guest's. It waits for the guest's driver
// as long as ctx lets it. Its errors are *net.OpError: ECONNRESET when the guest
// refuses, EADDRINUSE when this very connection exists, the error of ctx.
func (d *Device) Dial(ctx context.Context, src vsock.Addr, port uint32) (*Conn, error) {
	c := newConn(d, key{cid: src.ContextID, port: src.Port, guestPort: port}, requesting)
	c.machine.due = bit(opRequest)
	answered := c.answered
	if err := d.add(c); err != nil {
		return nil, c.opError("dial", err)
	}
	d.send(c, news{busy: true})
	select {
	case <-answered:
	case <-ctx.Done():
		c.Close()
		return nil, c.opError("dial", ctx.Err())
	}
	c.mu.Lock()
	state, err := c.machine.state, c.machine.err
	c.mu.Unlock()
	if state == gone && err != nil {
		return nil, c.opError("dial", err)
	}
	return c, nil
}

// Close resets all connections and waits until every call of Connect has returned.
// The session that serves the device ends separately.
func (d *Device) Close() error {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.abort(unix.ECONNRESET, nil) // before Connect is told to end: it might accept at the last moment
	d.cancel()
	d.connecting.Wait()
	return nil
}

// Info implements vhostuser.Device. The configuration is struct
// virtio_vsock_config: the guest's CID, 64 bits wide.
func (d *Device) Info() vhostuser.Info {
	return vhostuser.Info{Queues: queues, Config: binary.LittleEndian.AppendUint64(nil, uint64(d.config.CID))}
}

// StartQueue implements vhostuser.Device. Connections outlast a pause of the
// virtual machine; a driver that sets up its queues anew knows nothing of them.
func (d *Device) StartQueue(q *vhostuser.Queue) {
	if q.Index() != queueRx {
		return
	}
	if q.Start() == 0 {
		d.abort(unix.ECONNRESET, (*machine).unheard)
	}
	d.mu.Lock()
	d.broken = nil
	d.mu.Unlock()
	d.rx.Store(q)
}

// StopQueue implements vhostuser.Device.
func (d *Device) StopQueue(q *vhostuser.Queue, err error) {
	if q.Index() == queueRx {
		d.rx.Store(nil)
	}
	if err != nil {
		d.mu.Lock()
		d.broken = fmt.Errorf("the guest's vsock driver has failed: %w", err)
		d.mu.Unlock()
		d.abort(unix.ECONNRESET, nil)
	}
}

// Disconnected implements vhostuser.Device.
func (d *Device) Disconnected() { d.abort(unix.ECONNRESET, nil) }

// Process implements vhostuser.Device.
func (d *Device) Process(q *vhostuser.Queue) error {
	switch q.Index() {
	case queueRx:
		return d.fill(q)
	case queueTx:
		d.drain(q)
	}
	return nil
}

// drain takes the guest's packets.
func (d *Device) drain(q *vhostuser.Queue) {
	pump := false
	for n := 1; q.Next(&d.txChain); n++ {
		h, err := readPacket(&d.txChain)
		if err == nil && h.srcCID == uint64(d.config.CID) && h.dstCID <= math.MaxUint32 {
			pump = d.receive(&h) || pump
		}
		q.Push(&d.txChain, 0)
		if pump && n%pumpPackets == 0 {
			d.pump()
			pump = false
		}
	}
	if pump {
		d.pump()
	}
}

// receive handles one packet, whose payload is in txChain. It returns whether there
// is something to send.
func (d *Device) receive(h *header) bool {
	k := key{cid: uint32(h.dstCID), port: h.dstPort, guestPort: h.srcPort}
	d.mu.Lock()
	c := d.conns[k]
	d.mu.Unlock()
	switch {
	case h.typ != typeStream || c == nil && h.op != opRequest:
		return h.op != opRst && d.refuse(h)
	case c == nil:
		return !d.accept(k, h) && d.refuse(h)
	}
	return d.note(c, c.receive(h, &d.txChain))
}

// refuse answers a packet with a RST.
func (d *Device) refuse(h *header) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reset(h.reset())
	return true
}

// reset queues a RST; a guest that takes none of them loses some. The caller holds
// d.mu.
func (d *Device) reset(h header) {
	if d.resets.len() < maxResets {
		d.resets.push(h)
	}
}

// accept puts the guest's REQUEST before Config.Connect, if there is room for it.
func (d *Device) accept(k key, h *header) bool {
	c := newConn(d, k, deciding)
	c.answered = nil
	c.machine.credit(h.bufAlloc, h.fwdCnt)
	ctx, cancel := context.WithCancel(d.ctx)
	c.cancel = cancel
	d.mu.Lock()
	full := d.closed || d.config.Connect == nil || d.deciding >= d.config.MaxPending || len(d.conns) >= d.config.MaxConns
	if !full {
		d.conns[k] = c
		d.deciding++
		d.connecting.Add(1)
	}
	d.mu.Unlock()
	if full {
		cancel()
		return false
	}
	go d.decide(ctx, c)
	return true
}

// decide asks Config.Connect about c.
func (d *Device) decide(ctx context.Context, c *Conn) {
	defer d.connecting.Done()
	defer c.cancel()
	err := d.config.Connect(ctx, c)
	d.mu.Lock()
	d.deciding--
	d.mu.Unlock()
	c.change(func(m *machine) verdict {
		switch {
		case m.state != deciding: // the guest has given up meanwhile
			return nothing
		case err != nil:
			return m.fail(unix.ECONNREFUSED)
		}
		m.accept()
		return nothing
	})
}

// add enters a connection of our own into the table.
func (d *Device) add(c *Conn) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return net.ErrClosed
	case d.broken != nil:
		return d.broken
	case len(d.conns) >= d.config.MaxConns:
		return os.NewSyscallError("connect", unix.ENOBUFS)
	case d.conns[c.key] != nil:
		return os.NewSyscallError("connect", unix.EADDRINUSE)
	}
	d.conns[c.key] = c
	return nil
}

// note enters what has become of c into the tables and returns whether there is
// something to send.
func (d *Device) note(c *Conn, n news) bool {
	if n == (news{}) {
		return false
	}
	d.mu.Lock()
	if n.gone && d.conns[c.key] == c {
		delete(d.conns, c.key)
	}
	if n.reset {
		h := c.header()
		h.op = opRst
		d.reset(h)
	}
	if n.busy && !c.queued {
		c.queued = true
		d.senders.push(c)
	}
	d.mu.Unlock()
	if n.gone && c.cancel != nil {
		c.cancel()
	}
	return n.busy || n.reset
}

// send notes what has become of c and puts what is due into the guest's buffers.
func (d *Device) send(c *Conn, n news) {
	if d.note(c, n) {
		d.pump()
	}
}

// pump fills the guest's receive buffers if it has any.
func (d *Device) pump() {
	if q := d.rx.Load(); q != nil {
		q.Run()
	}
}

// fill puts what is due into the guest's buffers: first the RSTs, then a turn of
// each connection.
func (d *Device) fill(q *vhostuser.Queue) error {
	for {
		c, h := d.nextSender()
		switch {
		case h != nil:
			if !q.Next(&d.rxChain) {
				return nil
			}
			if _, err := payloadRoom(&d.rxChain); err != nil {
				return err
			}
			writePacket(q, &d.rxChain, h, nil)
			d.dropReset()
		case c != nil:
			more, starved, err := c.emit(q, &d.rxChain, turnPackets)
			if more {
				d.note(c, news{busy: true})
			}
			if err != nil || starved {
				return err
			}
		default:
			return nil
		}
	}
}

// nextSender returns the oldest RST, which stays queued, or else the connection
// whose turn it is.
func (d *Device) nextSender() (*Conn, *header) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.resets.len() > 0 {
		h := *d.resets.front()
		return nil, &h
	}
	if d.senders.len() == 0 {
		return nil, nil
	}
	c := d.senders.pop()
	c.queued = false
	return c, nil
}

func (d *Device) dropReset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.resets.len() > 0 {
		d.resets.pop()
	}
}

// abort ends all connections but those that are to be spared, without a word to
// the guest.
func (d *Device) abort(err error, spare func(*machine) bool) {
	d.mu.Lock()
	d.resets = line[header]{}
	conns := make([]*Conn, 0, len(d.conns))
	for _, c := range d.conns {
		conns = append(conns, c)
	}
	d.mu.Unlock()
	for _, c := range conns {
		c.change(func(m *machine) verdict {
			if spare == nil || !spare(m) {
				m.end(err)
			}
			return nothing
		})
	}
}
