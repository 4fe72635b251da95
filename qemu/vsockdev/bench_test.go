package vsockdev

import (
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/qemu/vhostuser/vhosttest"
)

const chunk = 64 << 10 // of which each iteration moves one

// BenchmarkThroughput moves bytes on one connection, each way, and for comparison
// from one end of a UNIX socket pair to the other.
func BenchmarkThroughput(b *testing.B) {
	b.Run("to guest", func(b *testing.B) {
		s, c := connected(b)
		compare(b, func() {
			wait := background(func() { write(b, c) })
			s.sink(b.N * chunk)
			wait()
		})
	})
	b.Run("to host", func(b *testing.B) {
		s, c := connected(b)
		compare(b, func() {
			wait := background(func() { read(b, c) })
			s.pour(b.N)
			wait()
		})
	})
}

// compare reports the speed of move beside that of a UNIX socket pair.
func compare(b *testing.B, move func()) {
	near, far := vhosttest.Pair(b)
	defer near.Close()
	defer far.Close()
	speed := func(move func()) float64 {
		start := time.Now()
		move()
		return float64(b.N) * chunk / 1e6 / time.Since(start).Seconds()
	}
	pair := speed(func() {
		wait := background(func() { write(b, near) })
		read(b, far)
		wait()
	})
	b.ResetTimer()
	vsock := speed(move)
	b.StopTimer()
	b.ReportMetric(vsock, "MB/s")
	b.ReportMetric(pair, "socketpair-MB/s")
	b.ReportMetric(vsock/pair, "ratio")
}

func write(b *testing.B, w io.Writer) {
	p := make([]byte, chunk)
	for range b.N {
		_, err := w.Write(p)
		require.NoError(b, err)
	}
}

func read(b *testing.B, r io.Reader) {
	p := make([]byte, chunk)
	for n := 0; n < b.N*chunk; {
		got, err := r.Read(p)
		require.NoError(b, err)
		n += got
	}
}

// sink receives n bytes and gives credit as Linux does: once most of it is used.
func (s *stream) sink(n int) {
	p := make([]byte, chunk)
	told := s.fwd
	for n > 0 {
		head, length := s.rx.Wait()
		b := s.rxBufs[head][:length]
		if decodeHeader((*[headerSize]byte)(b)).op == opRW {
			got := copy(p, b[headerSize:])
			s.fwd += uint32(got)
			n -= got
		}
		s.rx.Offer(head)
		s.rx.Kick()
		if s.fwd-told > bufAlloc-maxPayload {
			s.say(opCreditUpdate, 0, "")
			told = s.fwd
		}
	}
}

// pour sends n chunks as fast as the credit lets it.
func (s *stream) pour(n int) {
	p := make([]byte, chunk)
	h := s.out
	h.op = opRW
	var sent, taken uint32
	for range n {
		for sent-taken > bufAlloc-chunk {
			s.tx.Kick()
			update, _ := s.recv()
			taken = update.fwdCnt
		}
		s.put(h, p)
		s.tx.Kick()
		sent += chunk
	}
}

// BenchmarkConnect makes a connection to the host, sends a byte each way and ends it.
func BenchmarkConnect(b *testing.B) {
	connect, conns := accepting()
	g := boot(b, newDevice(b, Config{Connect: connect}), linux)
	var p [1]byte
	for b.Loop() {
		s := g.stream(1000, 9000)
		s.say(opRequest, 0, "")
		s.hear(opResponse)
		c := <-conns
		s.say(opRW, 0, "\xb7")
		_, err := c.Read(p[:])
		require.NoError(b, err)
		_, err = c.Write(p[:])
		require.NoError(b, err)
		s.hear(opRW)
		require.NoError(b, c.Close())
		s.hear(opShutdown)
		s.say(opRst, 0, "")
		s.quiet()
	}
}
