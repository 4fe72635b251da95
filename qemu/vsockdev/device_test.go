package vsockdev

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/mdlayher/vsock"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/qemu/vhostuser/vhosttest"
)

// small is a driver with little memory.
var small = shape{features: allFeatures, rxNum: 2, rxLen: 1024, txNum: 2}

func src(port uint32) vsock.Addr { return vsock.Addr{ContextID: parent, Port: port} }

func TestStrayPacketsAreReset(t *testing.T) {
	vhosttest.CheckLeaks(t)
	connect, _ := accepting()
	g := boot(t, newDevice(t, Config{Connect: connect}), linux)
	stray := g.stream(1000, 9000).out
	for op := range uint16(20) {
		for _, typ := range []uint16{0, typeStream, 2, 0xffff} {
			if op == opRequest && typ == typeStream {
				continue
			}
			h := stray
			h.op, h.typ = op, typ
			g.send(h, "")
			if op != opRst { // which nothing answers
				got, _ := g.recv()
				require.Equal(t, h.reset(), got)
			}
		}
	}
	g.quiet()
}

// Nobody can be answered under a CID that is not the guest's.
func TestPacketsWithImpossibleAddressesAreDropped(t *testing.T) {
	connect, conns := accepting()
	g := boot(t, newDevice(t, Config{Connect: connect}), linux)
	for _, cids := range [][2]uint64{
		{guestCID + 1, parent}, {0, parent}, {guestCID | 1<<32, parent}, {guestCID, 1 << 32}, {guestCID, parent | 1<<63},
	} {
		for _, op := range []uint16{opRequest, opRW} {
			h := g.stream(1000, 9000).out
			h.srcCID, h.dstCID, h.op = cids[0], cids[1], op
			g.send(h, "")
			g.quiet()
		}
	}
	require.Empty(t, conns)
}

func TestConnectionIsRefused(t *testing.T) {
	vhosttest.CheckLeaks(t)
	refuse := func(_ context.Context, c *Conn) error {
		if c.LocalAddr().(*vsock.Addr).ContextID == parent {
			return nil
		}
		return errors.New("nobody is there")
	}
	for _, connect := range []func(context.Context, *Conn) error{refuse, nil} {
		d := newDevice(t, Config{Connect: connect})
		g := boot(t, d, linux)
		s := g.stream(1000, 9000)
		s.out.dstCID = 99
		for range 3 { // the address stays free
			s.say(opRequest, 0, "")
			s.hear(opRst)
		}
		g.quiet()
		require.Zero(t, count(d))
	}
}

func TestGuestGivesUpConnecting(t *testing.T) {
	vhosttest.CheckLeaks(t)
	asked := make(chan *Conn)
	d := newDevice(t, Config{Connect: func(ctx context.Context, c *Conn) error {
		asked <- c
		<-ctx.Done()
		return ctx.Err()
	}})
	g := boot(t, d, linux)
	s := g.stream(1000, 9000)
	s.say(opRequest, 0, "")
	c := <-asked
	s.say(opRst, 0, "")
	fails(t, c, unix.ECONNRESET)
	g.quiet()

	s.say(opRequest, 0, "")
	<-asked
	s.say(opRW, 0, "impatient") // before the answer
	s.hear(opRst)
	g.quiet()
	require.Zero(t, count(d))
}

func TestLimits(t *testing.T) {
	vhosttest.CheckLeaks(t)
	gate := make(chan struct{})
	conns := make(chan *Conn, 10)
	d := newDevice(t, Config{MaxConns: 3, MaxPending: 2, Connect: func(_ context.Context, c *Conn) error {
		<-gate
		conns <- c
		return nil
	}})
	g := boot(t, d, linux)
	request := func(port uint32) *stream {
		s := g.stream(port, 9000)
		s.say(opRequest, 0, "")
		return s
	}
	first, second := request(1), request(2)
	request(3).hear(opRst) // two wait already
	gate <- struct{}{}
	head, _ := g.recv()
	require.EqualValues(t, opResponse, head.op)
	gate <- struct{}{}
	g.recv()
	eventually(t, func() bool { return undecided(d) == 0 })

	close(gate)
	request(4).hear(opResponse)
	request(5).hear(opRst) // three stand already
	_, err := d.Dial(context.Background(), src(40000), 5005)
	require.ErrorIs(t, err, unix.ENOBUFS)

	first.say(opRst, 0, "")
	request(5).hear(opResponse)
	second.say(opRW, 0, "all the while")
	for range 4 {
		if c := <-conns; c.RemoteAddr().(*vsock.Addr).Port == 2 {
			require.Equal(t, "all the while", readAll(t, c, 13))
		}
	}
}

// What a guest cannot mean is dropped, and its queue goes on.
func TestMalformedPacketsAreDropped(t *testing.T) {
	s, c := connected(t)
	good := s.out
	good.op = opRW
	for n, size := range map[int]uint32{
		0: 0, 1: 0, headerSize - 1: 0, // no whole header
		headerSize: 1, headerSize + 10: 11, headerSize + 11: 0xffffffff, // more than there is
		headerSize + maxPayload: maxPayload + 1,
	} {
		h := good
		h.len = size
		slot := s.free[0]
		h.encode((*[headerSize]byte)(s.txBufs[slot]))
		s.raw(slot, n)
		s.tx.Kick()
		s.tx.Wait()
	}
	s.tx.SetDesc(s.free[0], s.txAddr[s.free[0]], headerSize, vhosttest.DescWrite, 0) // to be written
	s.tx.Offer(s.free[0])
	s.tx.Kick()
	s.tx.Wait()
	s.quiet()
	s.say(opRW, 0, "fine")
	require.Equal(t, "fine", readAll(t, c, 4))
}

func TestBrokenQueueEndsConnections(t *testing.T) {
	for name, spoil := range map[string]func(g *guest) *vhosttest.Ring{
		"transmit": func(g *guest) *vhosttest.Ring {
			g.tx.Offer(g.free[0])
			g.tx.SetDesc(g.free[0], 0, 1, 0, 0)
			return g.tx
		},
		"receive, outside memory": func(g *guest) *vhosttest.Ring {
			for i := range g.rxBufs {
				g.rx.SetDesc(i, 0, 1, vhosttest.DescWrite, 0)
			}
			g.send(g.stream(1, 1).out, "") // is due a RST
			return g.rx
		},
		"receive, too short": func(g *guest) *vhosttest.Ring {
			for i := range g.rxBufs {
				g.rx.SetDesc(i, vhosttest.GuestBase, headerSize, vhosttest.DescWrite, 0)
			}
			g.send(g.stream(1, 1).out, "")
			return g.rx
		},
	} {
		t.Run(name, func(t *testing.T) {
			vhosttest.CheckLeaks(t)
			s, c := connected(t)
			r := spoil(s.guest)
			r.ForceKick()
			r.WaitError()
			fails(t, c, unix.ECONNRESET)
			eventually(t, func() bool {
				_, err := c.dev.Dial(context.Background(), src(40000), 5005)
				return err != nil
			})
			_, err := c.dev.Dial(context.Background(), src(40000), 5005)
			require.ErrorContains(t, err, "the guest's vsock driver has failed: queue")

			// A driver that begins anew finds a working device.
			s.rx.Stop()
			s.tx.Stop()
			s.rings(small)
			s.start(0, 0)
			again := s.stream(1000, 9000)
			again.say(opRequest, 0, "")
			again.hear(opResponse)
			_, err = s.dial(c.dev, s.stream(5005, 40000))
			require.NoError(t, err)
		})
	}
}

func TestDriverThatBeginsAnewKnowsOfNoConnection(t *testing.T) {
	vhosttest.CheckLeaks(t)
	s, c := connected(t)
	require.NotZero(t, s.rx.Stop())
	s.tx.Stop()
	s.rings(small)
	s.start(0, 0)
	fails(t, c, unix.ECONNRESET)
	s.quiet()
	s.say(opRequest, 0, "")
	s.hear(opResponse)
}

func TestConnectionsOutlastAPause(t *testing.T) {
	vhosttest.CheckLeaks(t)
	s, c := connected(t)
	rx, tx := s.rx.Stop(), s.tx.Stop()
	wait := background(func() {
		_, err := c.Write([]byte("in the pause"))
		require.NoError(t, err)
	})
	s.start(rx, tx)
	_, got := s.hear(opRW)
	require.Equal(t, "in the pause", got)
	wait()
	s.say(opRW, 0, "after it")
	require.Equal(t, "after it", readAll(t, c, 8))
}

func TestConnectionsEndWithTheGuest(t *testing.T) {
	vhosttest.CheckLeaks(t)
	s, c := connected(t)
	s.say(opRW, 0, "last words")
	s.quiet()
	wait := background(func() {
		_, err := c.Write(make([]byte, 2*bufAlloc))
		require.ErrorIs(t, err, unix.ECONNRESET)
	})
	s.hear(opRW)
	s.Close()
	require.NoError(t, <-s.done)
	wait()
	require.Equal(t, "last words", readAll(t, c, 10))
	fails(t, c, unix.ECONNRESET)
	require.Zero(t, count(c.dev))
	require.NoError(t, c.Close())

	// The device finds its next guest.
	g := boot(t, c.dev, small)
	s = g.stream(1000, 9000)
	s.say(opRequest, 0, "")
	s.hear(opResponse)
}

func TestDeviceCloses(t *testing.T) {
	vhosttest.CheckLeaks(t)
	asked := make(chan *Conn, 1)
	d := newDevice(t, Config{Connect: func(ctx context.Context, c *Conn) error {
		asked <- c
		<-ctx.Done()
		return nil
	}})
	g := boot(t, d, linux)
	c, err := g.dial(d, g.stream(5005, 40000))
	require.NoError(t, err)
	s := g.stream(1000, 9000)
	s.say(opRequest, 0, "")
	deciding := <-asked
	require.NoError(t, d.Close())
	fails(t, c, unix.ECONNRESET)
	fails(t, deciding, unix.ECONNRESET)
	_, err = d.Dial(context.Background(), src(40001), 5005)
	require.ErrorIs(t, err, net.ErrClosed)
	s.say(opRequest, 0, "")
	s.hear(opRst)
	require.Zero(t, count(d))
}

func TestDialIsRefused(t *testing.T) {
	vhosttest.CheckLeaks(t)
	d := newDevice(t, Config{})
	g := boot(t, d, linux)
	s := g.stream(5005, 40000)
	wait := background(func() {
		_, err := d.Dial(context.Background(), src(40000), 5005)
		require.ErrorIs(t, err, unix.ECONNRESET)
		require.EqualError(t, err, "dial vsock vm(3):40000->vm(16):5005: dial: connection reset by peer")
	})
	s.hear(opRequest)
	s.say(opRst, 0, "")
	wait()
	g.quiet()
	require.Zero(t, count(d))
}

func TestDialIsGivenUp(t *testing.T) {
	vhosttest.CheckLeaks(t)
	d := newDevice(t, Config{})
	g := plug(t, d, linux)
	dial := func(ctx context.Context) (wait func()) {
		return background(func() {
			_, err := d.Dial(ctx, src(40000), 5005)
			require.ErrorIs(t, err, ctx.Err())
		})
	}
	// Before the guest's driver is there: it never hears of it.
	ctx, cancel := context.WithCancel(context.Background())
	wait := dial(ctx)
	eventually(t, func() bool { return count(d) == 1 })
	cancel()
	wait()
	g.start(0, 0)
	g.quiet()

	// While the guest owes the answer: it is told.
	ctx, cancel = context.WithCancel(context.Background())
	wait = dial(ctx)
	s := g.stream(5005, 40000)
	s.hear(opRequest)
	cancel()
	wait()
	s.hear(opRst)
	s.say(opResponse, 0, "") // too late
	s.hear(opRst)
	require.Zero(t, count(d))
}

func TestDialWaitsForTheGuest(t *testing.T) {
	vhosttest.CheckLeaks(t)
	d := newDevice(t, Config{})
	wait := background(func() {
		c, err := d.Dial(context.Background(), src(40000), 5005)
		require.NoError(t, err)
		require.NoError(t, c.Close())
	})
	eventually(t, func() bool { return count(d) == 1 })
	g := boot(t, d, linux)
	s := g.stream(5005, 40000)
	s.hear(opRequest)
	s.say(opResponse, 0, "")
	wait()
	s.hear(opShutdown)
	s.say(opRst, 0, "")
}

func TestSameConnectionTwice(t *testing.T) {
	s, c := dialled(t)
	_, err := c.dev.Dial(context.Background(), src(40000), 5005)
	require.ErrorIs(t, err, unix.EADDRINUSE)

	_, err = s.dial(c.dev, s.stream(5005, 40001)) // another source
	require.NoError(t, err)
	_, err = s.dial(c.dev, s.stream(5006, 40000)) // another destination
	require.NoError(t, err)

	require.NoError(t, c.Close())
	s.hear(opShutdown)
	_, err = c.dev.Dial(context.Background(), src(40000), 5005) // the guest has not let go yet
	require.ErrorIs(t, err, unix.EADDRINUSE)
	s.say(opRst, 0, "")
	s.quiet()
	_, err = s.dial(c.dev, s.stream(5005, 40000))
	require.NoError(t, err)
}

// A guest that is out of receive buffers gets everything once it has given some.
func TestReceiveBuffersRunOut(t *testing.T) {
	vhosttest.CheckLeaks(t)
	connect, conns := accepting()
	g := boot(t, newDevice(t, Config{Connect: connect}), small)
	var streams []*stream
	for port := range uint32(10) {
		s := g.stream(port, 9000)
		s.say(opRequest, 0, "")
		streams = append(streams, s)
	}
	var writing sync.WaitGroup
	text := bytes.Repeat([]byte("text"), 1000)
	for range streams {
		c := <-conns
		writing.Go(func() {
			n, err := c.Write(text)
			require.NoError(t, err)
			require.Equal(t, len(text), n)
		})
	}
	g.send(g.stream(99, 99).out, "") // is due a RST
	got := make([][]byte, len(streams))
	for total := 0; total < len(streams)*len(text); {
		h, payload := g.recv()
		if h.op == opRW {
			got[h.dstPort] = append(got[h.dstPort], payload...)
			total += len(payload)
		}
	}
	writing.Wait()
	for _, b := range got {
		require.True(t, bytes.Equal(text, b))
	}
	g.quiet()
}

// A guest that gets its RSTs by the thousand and takes none costs bounded memory.
func TestResetsAreBounded(t *testing.T) {
	d := newDevice(t, Config{})
	g := boot(t, d, small)
	for port := range uint32(3 * maxResets) {
		h := g.stream(port, 1).out
		h.op = opRW
		g.send(h, "")
	}
	g.idle()
	for range small.rxNum + maxResets {
		h, _ := g.recv()
		require.EqualValues(t, opRst, h.op)
	}
	g.quiet()
}

// Half of the connections are the guest's, half are the host's; all echo at once.
func TestThousandConnections(t *testing.T) {
	vhosttest.CheckLeaks(t)
	const n = 1000
	text := func(port uint32) []byte { return bytes.Repeat([]byte{byte(port), byte(port >> 8)}, 5000) }
	var hosts sync.WaitGroup
	defer hosts.Wait()
	echo := func(c *Conn) {
		hosts.Go(func() {
			_, err := io.Copy(c, c)
			require.NoError(t, err)
			require.NoError(t, c.Close())
		})
	}
	d := newDevice(t, Config{MaxPending: n, Connect: func(_ context.Context, c *Conn) error {
		echo(c)
		return nil
	}})
	g := boot(t, d, linux)
	streams := make([]*stream, n)
	for i := range uint32(n) {
		s := g.stream(i, 9000)
		streams[i] = s
		if i%2 == 0 {
			s.say(opRequest, 0, "")
			continue
		}
		hosts.Go(func() {
			c, err := d.Dial(context.Background(), src(9000), i)
			require.NoError(t, err)
			echo(c)
		})
	}
	got, ended := make([][]byte, n), 0
	g.await(func(h header, payload []byte) bool {
		s := streams[h.dstPort]
		switch h.op {
		case opRequest, opResponse:
			if h.op == opRequest {
				s.say(opResponse, 0, "")
			}
			s.say(opRW, 0, string(text(h.dstPort)))
			s.say(opShutdown, shutdownSend, "")
		case opRW:
			s.fwd += h.len
			got[h.dstPort] = append(got[h.dstPort], payload...)
		case opShutdown:
			require.EqualValues(t, shutdownBoth, h.flags)
			s.say(opRst, 0, "")
			ended++
		}
		return ended == n
	})
	for i := range got {
		require.True(t, bytes.Equal(text(uint32(i)), got[i]), "connection %d", i)
	}
	g.quiet()
	require.Zero(t, count(d))
}
