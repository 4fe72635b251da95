package daemon

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/sim/vsock"
)

func TestAStreamBeginsWithWhatWasReadAhead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	require.NoError(t, err)
	defer listener.Close()
	near, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	require.NoError(t, err)
	defer near.Close()
	far, err := listener.AcceptUnix()
	require.NoError(t, err)
	_, err = far.Write([]byte("header|first"))
	require.NoError(t, err)

	ahead := bufio.NewReader(near)
	_, err = ahead.ReadString('|')
	require.NoError(t, err)
	_, err = far.Write([]byte(" and last"))
	require.NoError(t, err)
	far.Close()
	var got bytes.Buffer
	_, err = io.Copy(&got, &stream{UnixConn: near, r: ahead})
	require.NoError(t, err)
	require.Equal(t, "first and last", got.String())
}

// openFiles counts this process's descriptors.
func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(list)
}

// Three hundred clients are killed whose peers neither send nor close: 300 of 300 connections stayed, with descriptors and
// buffers, until the enclave ended.
func TestClientsThatVanishLeaveNothing(t *testing.T) {
	const clients = 300
	c, _ := serving(t, folder(t))
	joined := make(chan Stream, clients)
	go func() {
		for range clients {
			s, err := c.AcceptKept(t.Context(), 5000)
			if err != nil {
				close(joined)
				return
			}
			joined <- s
		}
	}()
	files, goroutines := openFiles(t), runtime.NumGoroutine()
	var held []Stream
	for n := range clients {
		s, err := c.DialVsock(t.Context(), 3, 5000, true)
		require.NoError(t, err)
		if n%3 == 1 { // some have said that they send no more, some have sent what is not read
			require.NoError(t, s.CloseWrite())
		}
		if n%3 == 2 {
			_, err := s.Write([]byte("unread"))
			require.NoError(t, err)
		}
		far, ok := <-joined
		require.True(t, ok)
		held = append(held, far)
		require.NoError(t, s.Close())
	}
	for _, far := range held {
		require.True(t, vsock.HungUp(t.Context(), far))
	}
	eventually(t, func() bool { return openFiles(t) <= files+clients }) // the peers' own
	for _, far := range held {
		far.Close()
	}
	eventually(t, func() bool { return openFiles(t) <= files && runtime.NumGoroutine() <= goroutines })
}
