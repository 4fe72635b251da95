package daemon

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestMain makes the test's own program a daemon, for Ensure to start, where it is asked to be one.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "serve" {
		if err := Run(context.Background(), testConfig(Dir())); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if dir := os.Getenv(beSomebody); dir != "" {
		listenAsAnother(dir)
		return
	}
	if dir := os.Getenv(beRefused); dir != "" {
		askAsAnother(dir)
		return
	}
	os.Exit(m.Run())
}

func testConfig(dir string) Config {
	return Config{Dir: dir, Version: "test", Log: slog.New(slog.DiscardHandler)}
}

// folder makes a private folder with a short name, as sockets need it; t.TempDir's are too long.
func folder(t *testing.T) string {
	dir, err := os.MkdirTemp("", "nesim-")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// serving starts a daemon in this process. It ends with the test, if not before; the channel gets its error.
func serving(t *testing.T, dir string) (*Client, <-chan error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		defer close(done)
		done <- Run(ctx, testConfig(dir))
	}()
	t.Cleanup(func() { cancel(); <-done })
	c := NewClient(dir)
	eventually(t, func() bool {
		require.Empty(t, done, "the daemon has ended")
		_, err := c.About(ctx)
		return err == nil
	})
	return c, done
}

// say sends the daemon of dir some bytes and returns all that it answers.
func say(t *testing.T, dir, text string) string {
	t.Helper()
	conn, err := net.Dial("unix", filepath.Join(dir, socketName))
	require.NoError(t, err)
	defer conn.Close()
	go io.WriteString(conn, text) // the daemon may not read it all
	answer, _ := io.ReadAll(conn)
	return string(answer)
}

// oneLine makes sure that an error is one line for people and says what it should.
func oneLine(t *testing.T, err error, want string) {
	t.Helper()
	require.ErrorContains(t, err, want)
	require.NotContains(t, strings.TrimSpace(err.Error()), "\n")
}

func eventually(t *testing.T, f func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !f(); time.Sleep(time.Millisecond) {
		require.False(t, time.Now().After(end), "this does not happen")
	}
}
