package daemon

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/qemu/vhostuser/vhosttest"
	"github.com/nesim/nesim/sim/instance"
)

func TestADaemonServesItsFolderAlone(t *testing.T) {
	vhosttest.CheckLeaks(t)
	dir := folder(t)
	c, done := serving(t, dir)
	about, err := c.About(t.Context())
	require.NoError(t, err)
	require.Equal(t, os.Getpid(), about.PID)
	require.Equal(t, "test", about.Version)
	require.Equal(t, dir, about.Dir)
	require.Equal(t, filepath.Join(dir, pciSocketName), about.PCISocket)
	info, err := os.Stat(filepath.Join(dir, socketName))
	require.NoError(t, err)
	require.EqualValues(t, 0o600, info.Mode().Perm())

	oneLine(t, Run(t.Context(), testConfig(dir)), "a daemon is running already")
	_, err = c.About(t.Context())
	require.NoError(t, err, "the second did the first no harm")

	require.NoError(t, c.Shutdown(t.Context()))
	require.NoError(t, <-done)
	left, err := filepath.Glob(filepath.Join(dir, "*.sock"))
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestWhatAKilledDaemonLeftIsNoHindrance(t *testing.T) {
	dir := folder(t)
	for _, name := range []string{socketName, pciSocketName} {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, name)})
		require.NoError(t, err)
		l.SetUnlinkOnClose(false)
		require.NoError(t, l.Close())
	}
	sockets := filepath.Join(dir, "vm", "16")
	require.NoError(t, os.MkdirAll(sockets, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "lock"), nil, 0o600))

	_, err := NewClient(dir).About(t.Context())
	require.ErrorAs(t, err, new(*NotRunningError))
	serving(t, dir)
	require.NoDirExists(t, sockets)
}

func TestRequestsThatMakeNoSense(t *testing.T) {
	vhosttest.CheckLeaks(t)
	dir := folder(t)
	c, _ := serving(t, dir)
	for _, tc := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/no/such/path", "", 404, "404 page not found"},
		{"PUT", pathAbout, "", 405, "Method Not Allowed"},
		{"POST", pathEnclaves, "", 422, "read the request: EOF"},
		{"POST", pathEnclaves, "{", 422, "read the request: unexpected EOF"},
		{"POST", pathEnclaves, "[]", 422, "read the request: json: cannot unmarshal array"},
		{"POST", pathEnclaves, `{"EIFPath":"` + strings.Repeat("x", maxBody), 422, "read the request: http: request body too large"},
		{"POST", pathEnclaves, "{}" + strings.Repeat(" ", maxBody), 422, "read the request: http: request body too large"},
		{"POST", pathEnclaves, "{} {}", 422, "read the request: text after the JSON object"},
		{"POST", pathEnclaves, `{"eif_path":"/none","cpus":2}`, 422, `read the request: json: unknown field "cpus"`},
		{"GET", pathVsockDial, "", 422, `cid "" is not a number of 32 bits`},
		{"GET", pathVsockDial + "?cid=3&port=4294967296", "", 422, `port "4294967296" is not a number of 32 bits`},
		{"GET", pathVsockDial + "?cid=16&port=1", "", 422, "no enclave has CID 16"},
		{"GET", pathVsockDial + "?cid=3&port=1", "", 422, "connection refused"},
		{"GET", pathListen + "?port=-1", "", 422, `port "-1" is not a number of 32 bits`},
		{"GET", pathConsole + "?id=i-0", "", 422, "i-0"},
		{"GET", pathWait + "?name=i-0", "", 422, "i-0"},
		{"GET", pathWait + "?id=a&name=b", "", 422, "must name one enclave"},
		{"DELETE", pathEnclave + "?word=..%2F%0a", "", 422, "no enclave"},
		{"DELETE", pathEnclave, "", 422, "must name one enclave"},
	} {
		t.Run(fmt.Sprintf("%s %.40s %.10s", tc.method, tc.path, tc.body), func(t *testing.T) {
			answer := say(t, dir, fmt.Sprintf("%s %s HTTP/1.1\r\nHost: nesim\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s",
				tc.method, tc.path, len(tc.body), tc.body))
			resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(answer)), nil)
			require.NoError(t, err, answer)
			require.Equal(t, tc.status, resp.StatusCode)
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.Contains(t, strings.ReplaceAll(string(body), `\"`, `"`), tc.want)
			require.Equal(t, 1, strings.Count(string(body), "\n"))
		})
	}
	require.Contains(t, say(t, dir, "this is no HTTP\r\n\r\n"), "400 Bad Request")
	_, err := c.About(t.Context())
	require.NoError(t, err)

	// A client of another version is told so.
	oneLine(t, c.ask(t.Context(), "GET", "/no/such/path", nil, nil), "404 Not Found: it may be of another version")
}

func TestRunTellsItsFailure(t *testing.T) {
	c, _ := serving(t, folder(t))
	_, err := c.Run(t.Context(), instance.RunSpec{EIFPath: "/no/such.eif", CPUCount: 2, MemoryMiB: 256}, func(string) {})
	require.ErrorAs(t, err, new(*Error))
	oneLine(t, err, "/no/such.eif")
	list, err := c.Enclaves(t.Context(), false)
	require.NoError(t, err)
	require.Empty(t, list)
}

// What the flags of run-enclave refuse is refused over the socket too, and holds no slot.
func TestARequestToRunIsCheckedAsTheFlagsAre(t *testing.T) {
	dir := folder(t)
	c, _ := serving(t, dir)
	image, err := os.Executable() // a file, and no image
	require.NoError(t, err)
	good := instance.RunSpec{EIFPath: image, CPUCount: 2, MemoryMiB: 256}
	for want, spoil := range map[string]func(*instance.RunSpec){
		"at least one CPU core, not -5": func(s *instance.RunSpec) { s.CPUCount = -5 },
		"at least one CPU core, not 0":  func(s *instance.RunSpec) { s.CPUCount = 0 },
		"exclude each other":            func(s *instance.RunSpec) { s.CPUIDs = []uint32{2, 3} },
		"CPUs are named":                func(s *instance.RunSpec) { s.CPUCount, s.CPUIDs = 0, make([]uint32, 5000) },
		"the parent's":                  func(s *instance.RunSpec) { s.CID = 3 },
		"more than 32 bits":             func(s *instance.RunSpec) { s.CID = 1 << 32 },
		"must be absolute":              func(s *instance.RunSpec) { s.EIFPath = "none.eif" },
		"the image is missing":          func(s *instance.RunSpec) { s.EIFPath = "" },
		"has a NUL byte":                func(s *instance.RunSpec) { s.EIFPath = image + "\x00" },
		"name has 256 bytes":            func(s *instance.RunSpec) { s.Name = strings.Repeat("n", 256) },
		"no such file":                  func(s *instance.RunSpec) { s.EIFPath = "/no/such.eif" },
	} {
		for range 5 { // there are four slots
			spec := good
			spoil(&spec)
			_, err := c.Run(t.Context(), spec, func(string) {})
			oneLine(t, err, want)
		}
	}
	bad := good
	bad.Name = "caf\xe9"
	require.ErrorContains(t, bad.Check(), "is not UTF-8")
	bad = good
	bad.EIFPath = "/caf\xe9.eif"
	require.ErrorContains(t, bad.Check(), "is not UTF-8")
}

// joined returns both ends of a connection from the parent to itself.
func joined(t *testing.T, c *Client, port uint32) (dialled, accepted Stream) {
	t.Helper()
	result := make(chan error, 1)
	go func() {
		var err error
		accepted, err = c.AcceptVsock(t.Context(), port)
		result <- err
	}()
	dialled, err := c.DialVsock(t.Context(), 3, port, true)
	require.NoError(t, err)
	require.NoError(t, <-result)
	t.Cleanup(func() { dialled.Close(); accepted.Close() })
	return dialled, accepted
}

func TestStreamsCanBeClosedOneWay(t *testing.T) {
	c, _ := serving(t, folder(t))
	near, far := joined(t, c, 5000)
	question := strings.Repeat("question", 100_000)
	go func() {
		io.WriteString(near, question)
		near.CloseWrite()
	}()
	got, err := io.ReadAll(far)
	require.NoError(t, err)
	require.True(t, question == string(got))
	_, err = io.WriteString(far, "answer")
	require.NoError(t, err)
	require.NoError(t, far.Close())
	got, err = io.ReadAll(near)
	require.NoError(t, err)
	require.Equal(t, "answer", string(got))
}

func TestInterruptedStreamEndsOnTheOtherSide(t *testing.T) {
	vhosttest.CheckLeaks(t)
	c, _ := serving(t, folder(t))
	near, far := joined(t, c, 5000)
	io.WriteString(near, "unread")
	require.NoError(t, far.Close())
	io.Copy(io.Discard, near)
	eventually(t, func() bool {
		_, err := io.WriteString(near, "is anybody there?")
		return err != nil
	})
	near, far = joined(t, c, 5000) // the port is free again
	_, err := io.WriteString(near, "hello")
	require.NoError(t, err)
	_, err = io.ReadFull(far, make([]byte, 5))
	require.NoError(t, err)
}

func TestCommandsThatAreInterruptedLeaveNothing(t *testing.T) {
	vhosttest.CheckLeaks(t)
	c, _ := serving(t, folder(t))
	ctx, cancel := context.WithCancel(t.Context())
	dialled, accepted := make(chan error), make(chan error)
	go func() {
		_, err := c.DialVsock(ctx, 3, 5001, true)
		dialled <- err
	}()
	for range 2 {
		go func() {
			_, err := c.AcceptVsock(ctx, 5000)
			accepted <- err
		}()
	}
	oneLine(t, <-accepted, "address already in use") // so that the other listens now
	cancel()
	require.ErrorIs(t, <-accepted, context.Canceled)
	require.ErrorIs(t, <-dialled, context.Canceled)
	eventually(t, func() bool { // the daemon notices that they are gone
		s, err := c.DialVsock(t.Context(), 3, 5000, false)
		if err == nil {
			s.Close()
		}
		return err != nil
	})
	joined(t, c, 5000)
}

func TestShutdownEndsWhatIsUnderWay(t *testing.T) {
	vhosttest.CheckLeaks(t)
	c, done := serving(t, folder(t))
	near, far := joined(t, c, 5000)
	waiting := make(chan error)
	go func() {
		_, err := c.AcceptVsock(t.Context(), 5001)
		waiting <- err
	}()
	require.NoError(t, c.Shutdown(t.Context()))
	require.NoError(t, <-done)
	require.Error(t, <-waiting)
	for _, s := range []Stream{near, far} {
		io.Copy(io.Discard, s)
		eventually(t, func() bool { _, err := s.Write([]byte("x")); return err != nil })
		s.Close()
	}
}

func TestAKeptPortRefusesNobodyInBetween(t *testing.T) {
	c, _ := serving(t, folder(t))
	const times = 50
	go func() {
		for range times {
			conn, err := c.AcceptKept(t.Context(), 5000)
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	first, err := c.DialVsock(t.Context(), 3, 5000, true) // once somebody listens
	require.NoError(t, err)
	first.Close()
	for range times - 1 {
		conn, err := c.DialVsock(t.Context(), 3, 5000, false)
		require.NoError(t, err)
		conn.Close()
	}
}
