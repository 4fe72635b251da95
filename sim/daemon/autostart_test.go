package daemon

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/qemu/vhostuser/vhosttest"
	"github.com/nesim/nesim/sim/errcode"
)

func TestClientsAtOnceStartOneDaemon(t *testing.T) {
	dir := folder(t)
	t.Setenv("NESIM_DIR", dir)
	var clients sync.WaitGroup
	pids := make(chan int, 5)
	for range cap(pids) {
		clients.Go(func() {
			c, err := Ensure(t.Context(), dir, os.Args[0], "serve")
			require.NoError(t, err)
			about, err := c.About(t.Context())
			require.NoError(t, err)
			pids <- about.PID
		})
	}
	clients.Wait()
	first := <-pids
	require.NotEqual(t, os.Getpid(), first)
	for range cap(pids) - 1 {
		require.Equal(t, first, <-pids)
	}
	c, err := Ensure(t.Context(), dir, "no-such-program") // which is not needed
	require.NoError(t, err)
	require.NoError(t, c.Shutdown(t.Context()))
	_, err = c.About(t.Context())
	require.ErrorAs(t, err, new(*NotRunningError))
	oneLine(t, err, "no nesim daemon runs in "+dir)
}

func TestADaemonThatDoesNotStartTellsWhy(t *testing.T) {
	vhosttest.CheckLeaks(t)
	for _, tc := range []struct {
		command []string
		want    string
	}{
		{[]string{"/no/such/program"}, "start the daemon: fork/exec /no/such/program: no such file"},
		{[]string{"sh", "-c", "echo first >&2; echo this is why >&2; exit 1"}, "the daemon did not start: this is why"},
		{[]string{"sh", "-c", "exit 1"}, "the daemon did not start: it left no word in "},
	} {
		_, err := Ensure(t.Context(), folder(t), tc.command...)
		oneLine(t, err, tc.want)
		require.Equal(t, errcode.ProcessSpawnFailure, errcode.Of(err))
	}
}

func TestTheLogIsTheUsersAlone(t *testing.T) {
	dir := folder(t)
	_, err := Ensure(t.Context(), dir, "sh", "-c", "echo no >&2")
	require.Error(t, err)
	info, err := os.Stat(filepath.Join(dir, logName))
	require.NoError(t, err)
	require.EqualValues(t, 0o600, info.Mode().Perm())
}
