package nsmdev

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/qemu/vhostuser"
	"github.com/nesim/nesim/qemu/vhostuser/vhosttest"
)

const allFeatures = vhostuser.FeatureVersion1 | vhostuser.FeatureEventIdx | vhostuser.FeatureIndirectDesc

// guest is a guest's driver.
type guest struct {
	*vhosttest.FrontEnd
	t     testing.TB
	ring  *vhosttest.Ring
	reqs  [][]byte // by descriptor
	rooms [][]byte
	done  <-chan error
}

const num = 64 // descriptors: even ones are for requests, odd ones for responses

// plug connects a guest whose driver has not started.
func plug(t testing.TB, d vhostuser.Device, features uint64) *guest {
	front, back := vhosttest.Pair(t)
	done := make(chan error, 1)
	go func() {
		done <- vhostuser.ServeConn(context.Background(), back, d)
		close(done)
	}()
	g := &guest{FrontEnd: vhosttest.New(t, front, 4<<20), t: t, done: done}
	t.Cleanup(func() { g.Close(); <-done })
	offered := g.Handshake(features)
	require.Equal(t, allFeatures|1<<30, offered)
	g.ring = g.NewRing(0, num, features)
	g.reqs, g.rooms = make([][]byte, num), make([][]byte, num)
	return g
}

func boot(t testing.TB, h Handler) *guest {
	g := plug(t, New(h), allFeatures)
	require.True(t, g.ring.Start(0))
	return g
}

// ask lays a request into descriptor i.
func (g *guest) ask(i int, request string) {
	b, addr := g.Alloc(max(len(request), 1))
	copy(b, request)
	g.ring.SetDesc(i, addr, uint32(len(request)), 0, 0)
	g.ring.Offer(i)
}

// room makes room for a response in descriptor i.
func (g *guest) room(i, n int) {
	b, addr := g.Alloc(max(n, 1))
	g.rooms[i] = b
	g.ring.SetDesc(i, addr, uint32(n), vhosttest.DescWrite, 0)
	g.ring.Offer(i)
}

// used waits for the next used chain, which must be i, and returns what is in it.
func (g *guest) used(i int) string {
	g.t.Helper()
	head, n := g.ring.Wait()
	require.Equal(g.t, i, head)
	return string(g.rooms[i][:n])
}

// echo answers with the request's length and the room.
func echo(request []byte, room int) []byte {
	b := fmt.Appendf(nil, "%s/%d/%d", request[:min(len(request), 10)], len(request), room)
	return b[:min(len(b), room)]
}

func TestARequestIsAnsweredAsLinuxAsks(t *testing.T) {
	vhosttest.CheckLeaks(t)
	g := boot(t, echo)
	for i := range 100 {
		request := fmt.Sprintf("ask %d", i)
		g.ask(0, request)
		g.room(1, 0x3000)
		g.ring.Kick()
		require.Empty(t, g.used(0))
		// Linux looks for both at the first interrupt.
		head, n, ok := g.ring.Pop()
		require.True(t, ok)
		require.Equal(t, 1, head)
		require.Equal(t, fmt.Sprintf("%s/%d/12288", request, len(request)), string(g.rooms[1][:n]))
	}
}

func TestARequestWaitsForTheRoomOfItsResponse(t *testing.T) {
	g := boot(t, echo)
	g.ask(0, "first")
	g.ring.ForceKick()
	g.ask(2, "second")
	g.ring.ForceKick()
	require.Empty(t, g.used(0), "the first is given up when another comes")
	_, _, ok := g.ring.Pop()
	require.False(t, ok, "the second waits")
	g.room(1, 100)
	g.ring.Kick()
	require.Empty(t, g.used(2))
	require.Equal(t, "second/6/100", g.used(1))
}

func TestAChainMayHoldBoth(t *testing.T) {
	g := boot(t, echo)
	out, outAddr := g.Alloc(3)
	copy(out, "abc")
	in, inAddr := g.Alloc(100)
	g.rooms[4] = in
	g.ring.SetDesc(4, outAddr, 3, vhosttest.DescNext, 5)
	g.ring.SetDesc(5, inAddr, 100, vhosttest.DescWrite, 0)
	g.ring.Offer(4)
	g.ring.Kick()
	require.Equal(t, "abc/3/100", g.used(4))
}

func TestManyRequestsAtOnce(t *testing.T) {
	g := boot(t, echo)
	for i := 0; i < num; i += 2 {
		g.ask(i, fmt.Sprint(i))
		g.room(i+1, 50)
	}
	g.ring.Kick()
	for i := 0; i < num; i += 2 {
		require.Empty(t, g.used(i))
		require.Equal(t, fmt.Sprintf("%d/%d/50", i, len(fmt.Sprint(i))), g.used(i+1))
	}
}

func TestSizesAreLimited(t *testing.T) {
	g := boot(t, echo)
	long := string(bytes.Repeat([]byte("x"), 3*maxRequest))
	for _, c := range []struct {
		request string
		room    int
		want    string
	}{
		{long[:maxRequest], 100, "xxxxxxxxxx/4096/100"},
		{long, 100, "xxxxxxxxxx/4097/100"}, // too long, as the handler can tell
		{"ask", 1 << 20, "ask/3/12288"},
		{"ask", 2, "as"},
	} {
		g.ask(0, c.request)
		g.room(1, c.room)
		g.ring.Kick()
		require.Empty(t, g.used(0))
		require.Equal(t, c.want, g.used(1))
	}
}

func TestAHandlersResponseIsCutToItsRoom(t *testing.T) {
	g := boot(t, func([]byte, int) []byte { return make([]byte, 1<<16) })
	g.ask(0, "ask")
	g.room(1, 10)
	g.ring.Kick()
	require.Empty(t, g.used(0))
	require.Len(t, g.used(1), 10)
}

func TestRoomWithoutARequestIsGivenBackEmpty(t *testing.T) {
	g := boot(t, func([]byte, int) []byte { panic("nothing was asked") })
	g.room(1, 100)
	g.room(3, 0)
	g.ring.Kick()
	require.Empty(t, g.used(1))
	require.Empty(t, g.used(3))
}

func TestAWaitingRequestOutlastsAPauseButNotItsDriver(t *testing.T) {
	d := New(echo)
	g := plug(t, d, allFeatures)
	require.True(t, g.ring.Start(0))
	g.room(3, 10)
	g.ask(0, "first")
	g.ring.Kick()
	require.Empty(t, g.used(3))
	at := g.ring.Stop()
	for at == 1 { // it had not come so far
		require.True(t, g.ring.Start(at))
		at = g.ring.Stop()
	}
	require.True(t, g.ring.Start(at))
	g.room(1, 100)
	g.ring.ForceKick()
	require.Empty(t, g.used(0))
	require.Equal(t, "first/5/100", g.used(1))

	g.ask(0, "second")
	g.ring.ForceKick()
	g.Close()
	<-g.done
	require.False(t, d.waiting, "another guest does not get its answer")
	again := plug(t, d, allFeatures)
	require.True(t, again.ring.Start(0))
	again.room(1, 100)
	again.ring.Kick()
	require.Empty(t, again.used(1))
}

func TestADriverThatBreaksTheQueueStopsOnlyItself(t *testing.T) {
	vhosttest.CheckLeaks(t)
	d := New(echo)
	bad := plug(t, d, allFeatures)
	require.True(t, bad.ring.Start(0))
	bad.ask(0, "waits")
	bad.ring.SetDesc(7, 1<<50, 100, 0, 0) // outside its memory
	bad.ring.Offer(7)
	bad.ring.Kick()
	bad.ring.WaitError()
	bad.Close()
	require.NoError(t, <-bad.done)

	good := plug(t, d, vhostuser.FeatureVersion1)
	require.True(t, good.ring.Start(0))
	good.ask(0, "good")
	good.room(1, 100)
	good.ring.Kick()
	require.Empty(t, good.used(0))
	require.Equal(t, "good/4/100", good.used(1))
}

// watched tells when the queue has been processed.
type watched struct {
	*Device
	processed chan struct{}
}

func (w watched) Process(q *vhostuser.Queue) error {
	err := w.Device.Process(q)
	select {
	case w.processed <- struct{}{}:
	default:
	}
	return err
}

// FuzzQueue lets a driver put anything into the ring: the input is descriptors of eight
// bytes each and the chains that begin at them.
func FuzzQueue(f *testing.F) {
	desc := func(at, n uint16, flags, next uint8) []byte {
		b := binary.LittleEndian.AppendUint16(nil, at)
		return append(binary.LittleEndian.AppendUint16(b, n), flags, next, 0, 0)
	}
	f.Add(bytes.Join([][]byte{desc(0, 100, 0, 0), desc(200, 0x3000, 2, 0)}, nil), []byte{0, 1})
	f.Add(bytes.Join([][]byte{desc(0, 100, 1, 1), desc(200, 0x3000, 2, 0)}, nil), []byte{0, 0, 0})
	f.Add(bytes.Join([][]byte{desc(0, 100, 1, 1), desc(200, 100, 1, 0)}, nil), []byte{0, 1})
	f.Add(bytes.Join([][]byte{desc(0, 48, 4, 0), desc(0xffff, 0xffff, 2, 0)}, nil), []byte{1, 0, 1, 200})
	f.Fuzz(func(t *testing.T, table, heads []byte) {
		w := watched{New(func(request []byte, room int) []byte {
			require.NotEmpty(t, request)
			require.LessOrEqual(t, len(request), maxRequest+1)
			require.LessOrEqual(t, room, maxResponse)
			return make([]byte, room)
		}), make(chan struct{}, 1)}
		g := plug(t, w, allFeatures)
		_, base := g.Alloc(1 << 15)
		for i := 0; i < num && len(table) >= 8; i, table = i+1, table[8:] {
			at := base + uint64(binary.LittleEndian.Uint16(table))<<(table[6]%48)
			g.ring.SetDesc(i, at, uint32(binary.LittleEndian.Uint16(table[2:]))<<(table[7]%17), uint16(table[4]), uint16(table[5]))
		}
		for _, head := range heads[:min(len(heads), num)] {
			g.ring.Offer(int(head))
		}
		require.True(t, g.ring.Start(0))
		<-w.processed
		require.LessOrEqual(t, g.ring.Stop(), num)
		g.Close()
		require.NoError(t, <-g.done)
	})
}
