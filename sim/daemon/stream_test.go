package daemon

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
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
