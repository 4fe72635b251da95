package vsock

import (
	"context"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// spliceTest joins a program's UNIX connection to a guest's: the test has the far end of each.
type spliceTest struct {
	program *net.UnixConn
	guest   *Stream
	done    chan error // gets Splice's error
}

func newSplice(t *testing.T, linger time.Duration) spliceTest {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "")
		c, err := net.FileConn(f)
		require.NoError(t, err)
		f.Close()
		ends[i] = c.(*net.UnixConn)
	}
	near, far := Pipe(Addr{ContextID: 3, Port: 1}, Addr{ContextID: 16, Port: 2})
	s := spliceTest{ends[0], far, make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { s.done <- splice(ctx, ends[1], near, linger) }()
	t.Cleanup(func() {
		cancel()
		s.program.Close()
		s.guest.Close()
	})
	return s
}

func TestAHangUpOfAProgramEndsTheGuestsConnection(t *testing.T) {
	s := newSplice(t, lingerTime)
	s.program.Close()
	<-s.guest.Gone()
	require.NoError(t, <-s.done)
	_, err := s.guest.Write([]byte("anybody?"))
	require.ErrorIs(t, err, unix.EPIPE)
}

func TestAHangUpOfTheGuestEndsTheProgramsConnection(t *testing.T) {
	s := newSplice(t, lingerTime)
	_, err := s.guest.Write([]byte("bye"))
	require.NoError(t, err)
	s.guest.Close()
	require.NoError(t, <-s.done)
	require.True(t, HungUp(t.Context(), s.program))
	got, err := io.ReadAll(s.program)
	require.NoError(t, err)
	require.Equal(t, "bye", string(got))
	_, err = s.program.Write([]byte("anybody?"))
	require.ErrorIs(t, err, unix.EPIPE)
}

func TestHalfACloseStaysHalf(t *testing.T) {
	s := newSplice(t, lingerTime)
	_, err := s.program.Write([]byte("question"))
	require.NoError(t, err)
	require.NoError(t, s.program.CloseWrite())
	got, err := io.ReadAll(s.guest)
	require.NoError(t, err)
	require.Equal(t, "question", string(got))
	select {
	case <-s.guest.Gone():
		t.Fatal("half a close was passed on as a whole one")
	default:
	}
	answer := strings.Repeat("answer", 100_000)
	go func() {
		_, _ = io.WriteString(s.guest, answer)
		_ = s.guest.CloseWrite()
	}()
	got, err = io.ReadAll(s.program)
	require.NoError(t, err)
	require.True(t, answer == string(got))
	require.NoError(t, <-s.done)
}

func TestAProgramMayHangUpAfterHalfAClose(t *testing.T) {
	s := newSplice(t, lingerTime)
	require.NoError(t, s.program.CloseWrite())
	_, err := s.guest.Read(make([]byte, 1))
	require.Equal(t, io.EOF, err)
	s.program.Close() // the guest neither sends nor closes
	<-s.guest.Gone()
	require.NoError(t, <-s.done)
}

func TestWhatAProgramSentBeforeItHungUpArrives(t *testing.T) {
	s := newSplice(t, lingerTime)
	sent := strings.Repeat("x", 100_000) // more than a stream holds
	_, err := io.WriteString(s.program, sent)
	require.NoError(t, err)
	s.program.Close()
	got, err := io.ReadAll(s.guest)
	require.NoError(t, err)
	require.True(t, sent == string(got))
	<-s.guest.Gone()
	require.NoError(t, <-s.done)
}

func TestAGuestThatReadsNothingDoesNotKeepAProgramThatIsGone(t *testing.T) {
	s := newSplice(t, time.Millisecond)
	_, err := io.WriteString(s.program, strings.Repeat("x", 2*streamBuffer))
	require.NoError(t, err)
	s.program.Close()
	<-s.guest.Gone()
	require.ErrorIs(t, <-s.done, unix.ECONNRESET)
}

func TestAProgramThatReadsNothingDoesNotKeepAGuestThatIsGone(t *testing.T) {
	s := newSplice(t, time.Millisecond)
	go func() {
		_, _ = s.guest.Write(make([]byte, 8<<20)) // until the connection is reset
	}()
	_, err := io.ReadFull(s.program, make([]byte, 1<<20))
	require.NoError(t, err)
	s.guest.Close()
	<-s.done
	require.True(t, HungUp(t.Context(), s.program))
}

func TestNobodyHangsUpWhoStillReads(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	near, far := Pipe(Addr{}, Addr{})
	require.NoError(t, far.CloseWrite())
	cancel()
	require.False(t, HungUp(ctx, near))
	require.False(t, HungUp(ctx, nil), "of which nothing is known")
}
