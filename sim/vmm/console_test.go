package vmm

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// follow attaches a follower, which gets each byte only when it reads it.
type follow func() net.Conn

// tested runs f in a bubble with a console that is served; all that serves it ends with the test.
func tested(t *testing.T, f func(t *testing.T, c *console, follow follow)) {
	synctest.Test(t, func(t *testing.T) {
		c, conns := &console{}, make(pipes)
		served := make(chan struct{})
		go func() {
			defer close(served)
			c.serve(conns)
		}()
		f(t, c, func() net.Conn {
			near, far := net.Pipe()
			conns <- far
			synctest.Wait()
			return near
		})
		conns.Close()
		c.close()
		<-served
		require.Empty(t, c.followers)
	})
}

// pipes is a net.Listener that accepts what is sent to it.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if conn, ok := <-p; ok {
		return conn, nil
	}
	return nil, net.ErrClosed
}
func (p pipes) Close() error   { close(p); return nil }
func (p pipes) Addr() net.Addr { return nil }

func receive(t *testing.T, conn net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	_, err := io.ReadFull(conn, got)
	require.NoError(t, err)
	require.Equal(t, want, string(got))
}

func rest(t *testing.T, conn net.Conn) string {
	t.Helper()
	got, err := io.ReadAll(conn)
	require.NoError(t, err)
	return string(got)
}

func TestFollowersGetWhatWasSaidBefore(t *testing.T) {
	tested(t, func(t *testing.T, c *console, follow follow) {
		io.WriteString(c, "one\n")
		early := follow()
		receive(t, early, "one\n")
		io.WriteString(c, "two\n")
		receive(t, early, "two\n")
		late := follow()
		receive(t, late, "one\ntwo\n")
		io.WriteString(c, "three\n")
		receive(t, late, "three\n")
		c.close()
		require.Equal(t, "three\n", rest(t, early))
		require.Empty(t, rest(t, late))
		require.Equal(t, "one\ntwo\nthree\n", rest(t, follow()), "after the end")
	})
}

// The writer goes on whether a follower reads or not.
func TestSlowFollowerLosesTheOldestText(t *testing.T) {
	tested(t, func(t *testing.T, c *console, follow follow) {
		slow, fast := follow(), follow()
		all := make(chan string)
		go func() {
			got, _ := io.ReadAll(fast)
			all <- string(got)
		}()
		var said strings.Builder
		for i := 0; said.Len() < 4*followerSize; i++ {
			line := fmt.Sprintf("line %d\n", i)
			said.WriteString(line)
			io.WriteString(c, line)
			if i%1000 == 0 {
				synctest.Wait() // the fast one keeps up
			}
		}
		c.close()
		require.True(t, said.String() == <-all, "who keeps up gets everything")

		// What was on its way when it fell behind, then the newest.
		got, ok := strings.CutPrefix(rest(t, slow), "line 0\n")
		require.True(t, ok)
		require.True(t, strings.HasPrefix(got, "line "), "it goes on with a whole line")
		require.True(t, strings.HasSuffix(said.String(), "\n"+got), "without another gap")
		require.Greater(t, len(got), followerSize/2)
		require.LessOrEqual(t, len(got), followerSize)
	})
}

func TestFollowerThatReadsNothingIsLeftInTheEnd(t *testing.T) {
	tested(t, func(t *testing.T, c *console, follow follow) {
		io.WriteString(c, "unread\n")
		before := follow()
		c.close()
		after := follow()
		time.Sleep(lastRead)
		synctest.Wait()
		require.Empty(t, c.followers)
		require.Empty(t, rest(t, before))
		require.Empty(t, rest(t, after))
	})
}

func TestFollowerGoesAway(t *testing.T) {
	tested(t, func(t *testing.T, c *console, follow follow) {
		io.WriteString(c, "text\n")
		idle, stuck, stays := follow(), follow(), follow()
		receive(t, idle, "text\n")
		receive(t, stays, "text\n")
		_, err := io.WriteString(stays, "the console has no input\n")
		require.NoError(t, err)
		idle.Close()
		stuck.Close()
		synctest.Wait()
		require.Len(t, c.followers, 1)
		io.WriteString(c, "more\n")
		receive(t, stays, "more\n")
	})
}

func TestFloodTakesBoundedMemory(t *testing.T) {
	tested(t, func(t *testing.T, c *console, follow follow) {
		stuck := follow()
		flood := bytes.Repeat([]byte("no end of line"), 1000)
		for range 1000 {
			c.Write(flood)
		}
		require.LessOrEqual(t, cap(c.history.data), 2*historySize)
		for f := range c.followers {
			require.LessOrEqual(t, cap(f.pending.data), 2*followerSize)
		}
		stuck.Close()
		require.Len(t, c.lastLines(10), 1)
	})
}

func TestTailBufferKeepsTheNewest(t *testing.T) {
	const size = 16
	for _, tc := range []struct {
		name   string
		writes []string
		want   string
	}{
		{"empty", nil, ""},
		{"all fits", []string{"0123456789", "abcdef"}, "0123456789abcdef"},
		{"three quarters are kept", []string{"0123456789abcdef", "g"}, "56789abcdefg"},
		{"whole lines", []string{"01234\n6\n89abcdef", "g"}, "6\n89abcdefg"},
		{"a line's end too far behind", []string{"0123456789\nbcdef", "g"}, "56789\nbcdefg"},
		{"much at once", []string{"old", strings.Repeat("x", 100) + "0123456789ab"}, "0123456789ab"},
		{"it goes on", []string{"0123456789abcdef", "g", "hijk", "l"}, "abcdefghijkl"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var b tailBuffer
			for _, s := range tc.writes {
				b.write([]byte(s), size)
			}
			require.Equal(t, tc.want, string(b.data))
		})
	}
}

func TestLastLines(t *testing.T) {
	var c console
	require.Empty(t, c.lastLines(3))
	io.WriteString(&c, "one\r\n\r\ntwo\r\nthr")
	require.Equal(t, []string{"one", "two", "thr"}, c.lastLines(5))
	require.Equal(t, []string{"two", "thr"}, c.lastLines(2))
}
