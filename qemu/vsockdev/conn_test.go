package vsockdev

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/vsock"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestGuestConnects(t *testing.T) {
	s, c := connected(t)
	require.Equal(t, &vsock.Addr{ContextID: parent, Port: 9000}, c.LocalAddr())
	require.Equal(t, &vsock.Addr{ContextID: guestCID, Port: 1000}, c.RemoteAddr())
	s.say(opRW, 0, "\xb7")
	require.Equal(t, "\xb7", readAll(t, c, 1))
	n, err := c.Write([]byte("back"))
	require.NoError(t, err)
	require.Equal(t, 4, n)
	_, got := s.hear(opRW)
	require.Equal(t, "back", got)
}

func TestHostConnects(t *testing.T) {
	s, c := dialled(t)
	require.Equal(t, &vsock.Addr{ContextID: parent, Port: 40000}, c.LocalAddr())
	require.Equal(t, &vsock.Addr{ContextID: guestCID, Port: 5005}, c.RemoteAddr())
	c.Write([]byte("hello"))
	_, got := s.hear(opRW)
	require.Equal(t, "hello", got)
	s.say(opRW, 0, got)
	require.Equal(t, "hello", readAll(t, c, 5))
}

func TestGuestClosesItsWritingEnd(t *testing.T) {
	s, c := connected(t)
	s.say(opRW, 0, "last words")
	s.say(opShutdown, shutdownSend, "")
	b, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Equal(t, "last words", string(b))
	_, err = c.Write([]byte("still here"))
	require.NoError(t, err)
	_, got := s.hear(opRW)
	require.Equal(t, "still here", got)
	require.NoError(t, c.Close())
	h, _ := s.hear(opShutdown)
	require.EqualValues(t, shutdownBoth, h.flags)
}

func TestGuestClosesItsReadingEnd(t *testing.T) {
	s, c := connected(t)
	wait := background(func() {
		_, err := c.Write(make([]byte, bufAlloc+1)) // beyond the guest's credit
		require.ErrorIs(t, err, unix.EPIPE)
	})
	for h := (header{}); h.op != opCreditRequest; {
		h, _ = s.recv()
	}
	s.say(opShutdown, shutdownRcv, "")
	wait()
	s.say(opRW, 0, "I can still talk")
	require.Equal(t, "I can still talk", readAll(t, c, 16))
}

func TestGuestClosesBothEnds(t *testing.T) {
	s, c := connected(t)
	s.say(opRW, 0, "bye")
	s.say(opShutdown, shutdownBoth, "")
	s.hear(opRst)
	b, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Equal(t, "bye", string(b))
	_, err = c.Write([]byte("x"))
	require.ErrorIs(t, err, unix.EPIPE)
	require.NoError(t, c.Close())
	s.quiet()
}

func TestWhatTheGuestHasTakenIsWrittenThoughItClosesAtOnce(t *testing.T) {
	connect, conns := accepting()
	g := boot(t, newDevice(t, Config{Connect: connect}), linux)
	for n := range uint32(1000) { // as the parent's answer to a heartbeat is taken: the guest may be quicker than the writer
		s := g.stream(1000+n, 9000)
		s.say(opRequest, 0, "")
		s.hear(opResponse)
		c := <-conns
		wait := background(func() {
			_, err := c.Write([]byte{0xb7})
			require.NoError(t, err)
		})
		s.hear(opRW)
		s.say(opShutdown, shutdownBoth, "")
		s.hear(opRst)
		wait()
		require.NoError(t, c.Close())
	}
}

func TestHostClosesItsWritingEnd(t *testing.T) {
	s, c := connected(t)
	c.Write([]byte("done"))
	require.NoError(t, c.CloseWrite())
	require.NoError(t, c.CloseWrite())
	_, err := c.Write([]byte("more"))
	require.ErrorIs(t, err, unix.EPIPE)
	s.hear(opRW)
	h, _ := s.hear(opShutdown)
	require.EqualValues(t, shutdownSend, h.flags)
	s.say(opRW, 0, "answer")
	s.say(opShutdown, shutdownBoth, "")
	b, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Equal(t, "answer", string(b))
	s.hear(opRst)
}

func TestHostCloses(t *testing.T) {
	s, c := connected(t)
	c.Write([]byte("done"))
	require.NoError(t, c.Close())
	require.ErrorIs(t, c.Close(), net.ErrClosed)
	_, err := c.Read(make([]byte, 1))
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = c.Write([]byte("x"))
	require.ErrorIs(t, err, net.ErrClosed)
	require.ErrorIs(t, c.CloseWrite(), net.ErrClosed)
	require.ErrorIs(t, c.SetDeadline(time.Time{}), net.ErrClosed)
	_, got := s.hear(opRW)
	require.Equal(t, "done", got)
	h, _ := s.hear(opShutdown)
	require.EqualValues(t, shutdownBoth, h.flags)
	s.say(opRW, 0, "too late")
	s.say(opRst, 0, "")
	s.quiet()
	eventually(t, func() bool { return count(c.dev) == 0 })
}

func TestClosedConnectionDoesNotWaitForEver(t *testing.T) {
	s, c := connected(t)
	c.Close()
	s.hear(opShutdown)
	c.linger.Reset(0)
	s.hear(opRst)
	require.Zero(t, count(c.dev))
}

func TestGuestResets(t *testing.T) {
	s, c := connected(t)
	s.say(opRW, 0, "rest")
	s.say(opRst, 0, "")
	eventually(t, func() bool { return count(c.dev) == 0 })
	require.Equal(t, "rest", readAll(t, c, 4), "what came before can be read")
	_, err := c.Read(make([]byte, 1))
	require.ErrorIs(t, err, unix.ECONNRESET)
	require.EqualError(t, err, "read vsock vm(3):9000->vm(16):1000: read: connection reset by peer")
	_, err = c.Write([]byte("x"))
	require.ErrorIs(t, err, unix.ECONNRESET)
	var op *net.OpError
	require.ErrorAs(t, err, &op)
	require.Equal(t, c.LocalAddr(), op.Source)
	require.Equal(t, c.RemoteAddr(), op.Addr)
}

func TestCloseWakesReaderAndWriter(t *testing.T) {
	s, c := connected(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := c.Read(make([]byte, 1))
		require.ErrorIs(t, err, net.ErrClosed)
	})
	wg.Go(func() {
		n, err := c.Write(make([]byte, bufAlloc+1))
		require.ErrorIs(t, err, net.ErrClosed)
		require.Equal(t, bufAlloc, n)
	})
	for heard := 0; heard < bufAlloc; {
		_, p := s.recv()
		heard += len(p)
	}
	s.hear(opCreditRequest)
	c.Close()
	wg.Wait()
}

func TestDeadlines(t *testing.T) {
	s, c := connected(t)
	past := time.Unix(1, 0)
	timesOut := func(f func() error) {
		t.Helper()
		err := f()
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		var ne net.Error
		require.True(t, errors.As(err, &ne) && ne.Timeout())
	}
	read := func() error { _, err := c.Read(make([]byte, 1)); return err }
	write := func() error { _, err := c.Write(make([]byte, 1)); return err }

	require.NoError(t, c.SetDeadline(past))
	timesOut(read)
	timesOut(write)
	require.NoError(t, c.SetDeadline(time.Time{}))
	s.say(opRW, 0, "x")
	require.NoError(t, read())
	require.NoError(t, write())
	s.hear(opRW)

	require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Millisecond)))
	timesOut(read) // while it waits
	require.NoError(t, c.SetWriteDeadline(time.Now().Add(time.Millisecond)))
	timesOut(func() error {
		_, err := c.Write(make([]byte, 2*bufAlloc))
		return err
	})
	require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Hour)))
	wait := background(func() { timesOut(read) })
	require.NoError(t, c.SetReadDeadline(past)) // moved while it waits
	wait()
	require.NoError(t, c.SetReadDeadline(time.Time{}))
	s.say(opRW, 0, "y")
	require.Equal(t, "y", readAll(t, c, 1))
}

// The guest takes no more than it has said, and gets the rest as it makes room.
func TestWriteWaitsForCredit(t *testing.T) {
	connect, conns := accepting()
	g := boot(t, newDevice(t, Config{Connect: connect}), linux)
	s := g.stream(1000, 9000)
	s.out.bufAlloc = 10
	s.say(opRequest, 0, "")
	s.hear(opResponse)
	c := <-conns
	wait := background(func() {
		n, err := c.Write([]byte("0123456789abcdefghijklmno"))
		require.NoError(t, err)
		require.Equal(t, 25, n)
	})
	_, got := s.hear(opRW)
	require.Equal(t, "0123456789", got)
	s.hear(opCreditRequest)
	s.say(opCreditUpdate, 0, "")
	_, got = s.hear(opRW)
	require.Equal(t, "abcdefghij", got)
	s.hear(opCreditRequest)
	s.say(opRW, 0, "any packet carries credit")
	_, got = s.hear(opRW)
	require.Equal(t, "klmno", got)
	wait()
	require.Equal(t, "any packet carries credit", readAll(t, c, 25))
}

func TestReaderOpensTheWindowAgain(t *testing.T) {
	s, c := connected(t)
	chunk := strings.Repeat("c", maxPayload)
	for range bufAlloc / maxPayload {
		s.say(opRW, 0, chunk)
	}
	s.say(opCreditRequest, 0, "")
	h, _ := s.hear(opCreditUpdate)
	require.EqualValues(t, 0, h.fwdCnt)
	require.EqualValues(t, bufAlloc, h.bufAlloc)
	readAll(t, c, bufAlloc/2)
	h, _ = s.hear(opCreditUpdate)
	require.EqualValues(t, bufAlloc/2, h.fwdCnt)
	readAll(t, c, bufAlloc/2)
	h, _ = s.hear(opCreditUpdate)
	require.EqualValues(t, bufAlloc, h.fwdCnt)
}

func TestGuestThatSendsBeyondItsCreditIsReset(t *testing.T) {
	s, c := connected(t)
	for range bufAlloc / maxPayload {
		s.say(opRW, 0, strings.Repeat("c", maxPayload))
	}
	s.say(opRW, 0, "x")
	s.hear(opRst)
	readAll(t, c, bufAlloc)
	_, err := c.Read(make([]byte, 1))
	require.ErrorIs(t, err, unix.ENOBUFS)
}
