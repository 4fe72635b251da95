package vsockdev

import (
	"context"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/vsock"
	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/qemu/vhostuser"
	"github.com/nesim/nesim/qemu/vhostuser/vhosttest"
)

const (
	guestCID = 16
	parent   = 3

	allFeatures = vhostuser.FeatureVersion1 | vhostuser.FeatureEventIdx | vhostuser.FeatureIndirectDesc
)

// guest is a guest's driver, one packet at a time.
type guest struct {
	*vhosttest.FrontEnd
	t      testing.TB
	rx, tx *vhosttest.Ring
	rxBufs [][]byte
	txBufs [][]byte
	txAddr []uint64
	free   []int // tx slots
	done   <-chan error
}

type shape struct {
	features     uint64
	rxNum, rxLen int // receive buffers
	txNum        int
}

// linux is what Linux's driver has on QEMU's device.
var linux = shape{features: allFeatures, rxNum: 128, rxLen: 4096, txNum: 128}

// newDevice makes a device that is closed at the end of the test.
func newDevice(t testing.TB, c Config) *Device {
	c.CID = guestCID
	d := New(c)
	t.Cleanup(func() { d.Close() })
	return d
}

// boot starts a guest on d.
func boot(t testing.TB, d *Device, s shape) *guest {
	t.Helper()
	g := plug(t, d, s)
	g.start(0, 0)
	return g
}

// plug connects a guest whose driver has not started.
func plug(t testing.TB, d *Device, s shape) *guest {
	t.Helper()
	front, back := vhosttest.Pair(t)
	done := make(chan error, 1)
	go func() {
		done <- vhostuser.ServeConn(context.Background(), back, d)
		close(done)
	}()
	size := s.rxNum*(s.rxLen+64) + s.txNum*(headerSize+maxPayload+64) + 1<<20
	g := &guest{FrontEnd: vhosttest.New(t, front, size), t: t, done: done}
	t.Cleanup(func() { g.Close(); <-done })
	g.Handshake(s.features)
	g.rings(s)
	return g
}

// rings lays out the driver's queues, anew if there were some.
func (g *guest) rings(s shape) {
	g.rxBufs, g.txBufs, g.txAddr, g.free = nil, nil, nil, nil
	g.rx, g.tx = g.NewRing(queueRx, s.rxNum, s.features), g.NewRing(queueTx, s.txNum, s.features)
	for i := range s.rxNum {
		b, addr := g.Alloc(s.rxLen)
		g.rxBufs = append(g.rxBufs, b)
		g.rx.SetDesc(i, addr, uint32(s.rxLen), vhosttest.DescWrite, 0)
		g.rx.Offer(i)
	}
	for i := range s.txNum {
		b, addr := g.Alloc(headerSize + maxPayload)
		g.txBufs, g.txAddr = append(g.txBufs, b), append(g.txAddr, addr)
		g.free = append(g.free, i)
	}
}

func (g *guest) start(rx, tx int) {
	g.t.Helper()
	require.True(g.t, g.rx.Start(rx))
	require.True(g.t, g.tx.Start(tx))
}

// put lays a packet into the transmit ring without telling anybody.
func (g *guest) put(h header, payload []byte) {
	slot := g.slot()
	h.len = uint32(len(payload))
	h.encode((*[headerSize]byte)(g.txBufs[slot]))
	copy(g.txBufs[slot][headerSize:], payload)
	g.raw(slot, headerSize+len(payload))
}

// slot takes a free transmit slot; it waits for one.
func (g *guest) slot() int {
	for {
		head, _, ok := g.tx.Pop()
		if !ok && len(g.free) > 0 {
			break
		}
		if !ok {
			g.tx.Kick()
			head, _ = g.tx.Wait()
		}
		g.free = append(g.free, head)
	}
	slot := g.free[len(g.free)-1]
	g.free = g.free[:len(g.free)-1]
	return slot
}

// idle waits until the device has taken everything that was sent.
func (g *guest) idle() {
	for len(g.free) < len(g.txBufs) {
		head, _ := g.tx.Wait()
		g.free = append(g.free, head)
	}
}

// raw offers the first n bytes of a transmit slot.
func (g *guest) raw(slot, n int) {
	g.tx.SetDesc(slot, g.txAddr[slot], uint32(n), 0, 0)
	g.tx.Offer(slot)
}

// send sends a packet to the device.
func (g *guest) send(h header, payload string) {
	g.put(h, []byte(payload))
	g.tx.Kick()
}

// recv returns the next packet of the device's, and gives its buffer back.
func (g *guest) recv() (header, []byte) {
	head, n := g.rx.Wait()
	return g.take(head, n)
}

func (g *guest) take(head, n int) (header, []byte) {
	require.GreaterOrEqual(g.t, n, headerSize)
	h := decodeHeader((*[headerSize]byte)(g.rxBufs[head]))
	payload := append([]byte(nil), g.rxBufs[head][headerSize:n]...)
	require.EqualValues(g.t, len(payload), h.len)
	g.rx.Offer(head)
	g.rx.Kick()
	return h, payload
}

// await takes packets from the device until f finds what it waits for.
func (g *guest) await(f func(h header, payload []byte) bool) {
	for !f(g.recv()) {
	}
}

// skip drops the packets that the device has sent.
func (g *guest) skip() {
	for {
		head, n, ok := g.rx.Pop()
		if !ok {
			return
		}
		g.take(head, n)
	}
}

// quiet makes sure that the device has nothing to say: that it answers a probe, and
// nothing before that.
func (g *guest) quiet() {
	g.t.Helper()
	probe := header{srcCID: guestCID, srcPort: 77, dstCID: parent, dstPort: 77, typ: 99, op: opRW}
	g.send(probe, "")
	h, _ := g.recv()
	require.Equal(g.t, probe.reset(), h)
}

// stream is one connection as the guest sees it.
type stream struct {
	*guest
	out header // what its packets look like
	fwd uint32
}

func (g *guest) stream(port, hostPort uint32) *stream {
	return &stream{guest: g, out: header{
		srcCID: guestCID, srcPort: port, dstCID: parent, dstPort: hostPort, typ: typeStream, bufAlloc: bufAlloc,
	}}
}

// say sends a packet of the stream's.
func (s *stream) say(op uint16, flags uint32, payload string) {
	h := s.out
	h.op, h.flags, h.fwdCnt = op, flags, s.fwd
	s.send(h, payload)
}

// hear expects a packet for the stream.
func (s *stream) hear(op uint16) (header, string) {
	s.t.Helper()
	h, payload := s.recv()
	require.Equal(s.t, op, h.op)
	require.Equal(s.t, s.out.srcPort, h.dstPort)
	require.Equal(s.t, s.out.dstPort, h.srcPort)
	require.EqualValues(s.t, guestCID, h.dstCID)
	require.Equal(s.t, s.out.dstCID, h.srcCID)
	require.EqualValues(s.t, typeStream, h.typ)
	s.fwd += uint32(len(payload))
	return h, string(payload)
}

// pick waits for a certain packet for the stream and passes over all others.
func (s *stream) pick(op uint16) (got string) {
	s.await(func(h header, payload []byte) bool {
		got = string(payload)
		return h.op == op && h.dstPort == s.out.srcPort && h.srcPort == s.out.dstPort
	})
	return got
}

// accepting is a Connect that hands all connections to the test.
func accepting() (func(context.Context, *Conn) error, <-chan *Conn) {
	conns := make(chan *Conn, 10_000)
	return func(_ context.Context, c *Conn) error {
		conns <- c
		return nil
	}, conns
}

// connected returns both ends of a connection that the guest has made.
func connected(t testing.TB) (*stream, *Conn) {
	t.Helper()
	connect, conns := accepting()
	g := boot(t, newDevice(t, Config{Connect: connect}), linux)
	s := g.stream(1000, 9000)
	s.say(opRequest, 0, "")
	s.hear(opResponse)
	return s, <-conns
}

// dialled returns both ends of a connection that the host has made.
func dialled(t testing.TB) (*stream, *Conn) {
	t.Helper()
	d := newDevice(t, Config{})
	g := boot(t, d, linux)
	s := g.stream(5005, 40000)
	c, err := g.dial(d, s)
	require.NoError(t, err)
	return s, c
}

// dial lets the host connect to a stream of the guest's that takes it.
func (g *guest) dial(d *Device, s *stream) (c *Conn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err = d.Dial(context.Background(), vsock.Addr{ContextID: parent, Port: s.out.dstPort}, s.out.srcPort)
	}()
	s.hear(opRequest)
	s.say(opResponse, 0, "")
	<-done
	return c, err
}

// background runs f and returns a function that waits for its end.
func background(f func()) (wait func()) {
	var wg sync.WaitGroup
	wg.Go(f)
	return wg.Wait
}

func readAll(t testing.TB, c io.Reader, n int) string {
	t.Helper()
	b := make([]byte, n)
	_, err := io.ReadFull(c, b)
	require.NoError(t, err)
	return string(b)
}

func eventually(t testing.TB, f func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !f(); {
		require.False(t, time.Now().After(end), "this does not happen")
		time.Sleep(100 * time.Microsecond)
	}
}

// fails makes sure that the guest's end, whatever it was, has reached c.
func fails(t testing.TB, c *Conn, want error) {
	t.Helper()
	_, err := io.Copy(io.Discard, c)
	require.ErrorIs(t, err, want)
	_, err = c.Write([]byte("x"))
	require.ErrorIs(t, err, want)
}

// has reports whether d has the stream's connection.
func has(d *Device, s *stream) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.conns[key{cid: uint32(s.out.dstCID), port: s.out.dstPort, guestPort: s.out.srcPort}] != nil
}

// undecided returns how many calls of Connect there are.
func undecided(d *Device) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.deciding
}

// count returns how many connections d has.
func count(d *Device) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.conns)
}
