package vsock

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"
	"golang.org/x/sys/unix"
)

var (
	left  = Addr{ContextID: 3, Port: 1}
	right = Addr{ContextID: 16, Port: 2}
)

func TestStreamIsANetConn(t *testing.T) {
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		a, b := Pipe(left, right)
		return a, b, func() { a.Close(); b.Close() }, nil
	})
}

func TestAStreamHalfCloses(t *testing.T) {
	a, b := Pipe(left, right)
	send(t, a, "question")
	require.NoError(t, a.CloseWrite())
	_, err := a.Write([]byte("x"))
	require.ErrorIs(t, err, unix.EPIPE)
	receive(t, b, "question")
	_, err = b.Read(make([]byte, 1))
	require.Equal(t, io.EOF, err)
	send(t, b, "answer")
	require.NoError(t, b.Close())
	receive(t, a, "answer")
	_, err = a.Read(make([]byte, 1))
	require.Equal(t, io.EOF, err)
}

func TestWritingToAClosedStream(t *testing.T) {
	a, b := Pipe(left, right)
	require.NoError(t, b.Close())
	_, err := a.Write([]byte("x"))
	require.ErrorIs(t, err, unix.EPIPE)
	require.EqualError(t, err, "write vsock vm(3):1->vm(16):2: broken pipe")
	_, err = b.Write([]byte("x"))
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = b.Read([]byte("x"))
	require.ErrorIs(t, err, net.ErrClosed)
}

func TestAWriterWaitsForRoomAndForItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := Pipe(left, right)
		require.NoError(t, a.SetWriteDeadline(time.Now().Add(time.Minute)))
		n, err := a.Write(make([]byte, streamBuffer+1))
		require.Equal(t, streamBuffer, n)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.NoError(t, a.SetWriteDeadline(time.Time{}))
		go func() {
			synctest.Wait()
			io.CopyN(io.Discard, b, streamBuffer)
		}()
		send(t, a, "room")
		receive(t, b, "room")
		require.NoError(t, a.Reset())
		_, err = b.Write([]byte("x"))
		require.ErrorIs(t, err, unix.ECONNRESET)
	})
}

func TestSpliceJoinsWithHalfClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		user, near := Pipe(left, left)
		far, guest := Pipe(left, right)
		done := make(chan error)
		go func() { done <- Splice(t.Context(), near, far) }()
		send(t, user, "request")
		require.NoError(t, user.CloseWrite())
		body, err := io.ReadAll(guest)
		require.NoError(t, err)
		require.Equal(t, "request", string(body))
		reply := bytes.Repeat([]byte("reply"), 100_000)
		go func() { guest.Write(reply); guest.Close() }()
		body, err = io.ReadAll(user)
		require.NoError(t, err)
		require.Equal(t, reply, body)
		require.NoError(t, <-done)
		_, err = near.Write([]byte("x"))
		require.ErrorIs(t, err, net.ErrClosed)
		_, err = far.Write([]byte("x"))
		require.ErrorIs(t, err, net.ErrClosed)
	})
}

func TestSplicePassesOnAReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		user, near := Pipe(left, left)
		far, guest := Pipe(left, right)
		done := make(chan error)
		go func() { done <- Splice(t.Context(), near, far) }()
		require.NoError(t, guest.Reset())
		require.ErrorIs(t, <-done, unix.ECONNRESET)
		_, err := user.Read(make([]byte, 1))
		require.ErrorIs(t, err, unix.ECONNRESET)
	})
}

func TestSpliceEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		user, near := Pipe(left, left)
		far, guest := Pipe(left, right)
		ctx, cancel := context.WithCancelCause(t.Context())
		done := make(chan error)
		go func() { done <- Splice(ctx, near, far) }()
		synctest.Wait()
		gone := errors.New("the user has gone")
		cancel(gone)
		require.ErrorIs(t, <-done, gone)
		for _, c := range []Conn{user, guest} {
			_, err := c.Read(make([]byte, 1))
			require.ErrorIs(t, err, unix.ECONNRESET)
		}
	})
}

func TestSpliceDeliversWhatAGoneReaderSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		user, near := Pipe(left, left)
		far, guest := Pipe(left, right)
		send(t, guest, "goodbye")
		require.NoError(t, guest.Close())
		send(t, user, "nobody reads this")
		require.NoError(t, Splice(t.Context(), near, far))
		receive(t, user, "goodbye")
		_, err := user.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err)
	})
}
