package hybrid

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/qemu/vhostuser/vhosttest"
	"github.com/nesim/nesim/sim/vsock"
)

const (
	cid  = 16
	port = 5005
)

// world is a switch with one guest, which listens on one port, and a host.
type world struct {
	*testing.T
	net   *vsock.Switch
	host  *Host
	dir   string
	told  chan string
	guest chan *vsock.Stream // the guest's ends of connections to its port
}

func newWorld(t *testing.T, ctx context.Context, set ...func(*Host)) *world {
	vhosttest.CheckLeaks(t)
	dir, err := os.MkdirTemp("", "nesim-hybrid-") // t.TempDir's names are too long for sockets
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &world{T: t, net: vsock.New(), dir: dir, told: make(chan string, 16), guest: make(chan *vsock.Stream, 16)}
	t.Cleanup(func() { w.net.Close() })
	require.NoError(t, w.net.Attach(cid, vsock.EndpointFunc(func(ctx context.Context, src vsock.Addr, to uint32) (vsock.Conn, error) {
		if to != port {
			return nil, unix.ECONNRESET
		}
		near, far := vsock.Pipe(src, vsock.Addr{ContextID: cid, Port: to})
		w.guest <- far
		return near, nil
	})))
	w.host = New(ctx, w.net, func(text string) { w.told <- text })
	for _, f := range set {
		f(w.host)
	}
	t.Cleanup(w.host.Close)
	require.NoError(t, w.host.Serve(w.socket(), cid))
	return w
}

func (w *world) socket() string { return filepath.Join(w.dir, "guest") }
func (w *world) prefix() string { return filepath.Join(w.dir, "parent") }

// connect connects a program to a socket.
func (w *world) connect(path string) *net.UnixConn {
	w.Helper()
	c, err := net.Dial("unix", path)
	require.NoError(w, err)
	w.Cleanup(func() { c.Close() })
	return c.(*net.UnixConn)
}

// request connects a program to the guest's socket, and sends something.
func (w *world) request(text string) *net.UnixConn {
	w.Helper()
	c := w.connect(w.socket())
	send(w, c, text)
	return c
}

// joined is a program's connection to the guest, from both sides.
func (w *world) joined() (program *net.UnixConn, guest *vsock.Stream) {
	w.Helper()
	program = w.request("CONNECT 5005\n")
	guest = <-w.guest
	receive(w, program, fmt.Sprintf("OK %d\n", guest.RemoteAddr().(*vsock.Addr).Port))
	return program, guest
}

// dial connects the guest to the parent's port as through its device.
func (w *world) dial(port uint32) *vsock.Stream {
	w.Helper()
	guest, far := vsock.Pipe(vsock.Addr{ContextID: cid, Port: 40000}, vsock.Addr{ContextID: vsock.CIDParent, Port: port})
	require.NoError(w, w.net.Connect(w.Context(), far))
	return guest
}

func send(t require.TestingT, c io.Writer, text string) {
	_, err := io.WriteString(c, text)
	require.NoError(t, err)
}

func receive(t require.TestingT, c io.Reader, text string) {
	got := make([]byte, len(text))
	_, err := io.ReadFull(c, got)
	require.NoError(t, err)
	require.Equal(t, text, string(got))
}

// ends reads the end of a connection, of whatever kind.
func ends(t require.TestingT, c io.Reader) error {
	n, err := c.Read(make([]byte, 1))
	require.Zero(t, n)
	require.Error(t, err)
	return err
}

func TestAProgramConnectsToAGuest(t *testing.T) {
	w := newWorld(t, t.Context())
	program := w.request("connect 5005\nhello") // it need not wait for the answer
	guest := <-w.guest
	from := guest.RemoteAddr().(*vsock.Addr)
	require.Equal(t, vsock.CIDParent, from.ContextID)
	answer := bufio.NewReader(program)
	line, err := answer.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf("OK %d\n", from.Port), line)

	receive(t, guest, "hello")
	require.NoError(t, program.CloseWrite())
	require.Equal(t, io.EOF, ends(t, guest))
	send(t, guest, "and goodbye")
	require.NoError(t, guest.Close())
	receive(t, answer, "and goodbye")
	require.Equal(t, io.EOF, ends(t, answer))
}

func TestAGuestConnectsToAProgram(t *testing.T) {
	w := newWorld(t, t.Context())
	require.NoError(t, w.host.Forward(w.prefix(), 7000))
	require.NoError(t, w.host.Forward(w.prefix(), 7001))
	l, err := net.Listen("unix", w.prefix()+"_7000")
	require.NoError(t, err)
	defer l.Close()

	guest := w.dial(7000)
	program, err := l.Accept()
	require.NoError(t, err)
	send(t, guest, "hello")
	receive(t, program, "hello")
	send(t, program, "goodbye")
	require.NoError(t, program.Close())
	receive(t, guest, "goodbye")
	require.Equal(t, io.EOF, ends(t, guest))
	require.NoError(t, guest.Close())

	require.ErrorIs(t, ends(t, w.dial(7001)), unix.ECONNRESET)
	require.Contains(t, <-w.told, "the connection vm(16):40000 to vm(3):7001 is reset, as no program listens: connect to "+w.prefix()+"_7001")
}

func TestWhatDoesNotConnectIsClosedAndTold(t *testing.T) {
	w := newWorld(t, t.Context())
	require.NoError(t, w.host.Serve(filepath.Join(w.dir, "nobody"), 17))
	for request, want := range map[string]string{
		"CONNECT 5006\n":                     "a program's connection to CID 16 fails: dial vsock vm(3):",
		"HELLO 5005\n":                       `CID 16 fails: the request is "HELLO 5005", not CONNECT and a port`,
		"CONNECT\n":                          `the request is "CONNECT", not CONNECT and a port`,
		"\n":                                 `the request is "", not CONNECT and a port`,
		"CONNECT 5005 5005\n":                `the request is "CONNECT 5005 5005", not CONNECT and a port`,
		"CONNECT -1\n":                       `no port "-1": want 0 to 4294967294`,
		"CONNECT 0x10\n":                     `no port "0x10": want 0 to 4294967294`,
		"CONNECT 4294967295\n":               `no port "4294967295": want 0 to 4294967294`,
		"CONNECT 4294967296\n":               `no port "4294967296": want 0 to 4294967294`,
		"CONNECT " + strings.Repeat("0", 64): "the request is longer than 32 bytes",
	} {
		ends(t, w.request(request))
		require.Contains(t, <-w.told, want, request)
	}
	w.request("CONN").Close()
	require.Contains(t, <-w.told, `the request ends after "CONN": EOF`)

	c := w.connect(filepath.Join(w.dir, "nobody"))
	send(t, c, "CONNECT 5005\n")
	require.Equal(t, io.EOF, ends(t, c))
	require.Contains(t, <-w.told, "CID 17 fails: dial vsock")
	require.Empty(t, w.guest)
}

func TestASilentProgramIsNotWaitedForForEver(t *testing.T) {
	w := newWorld(t, t.Context(), func(h *Host) { h.patience = time.Millisecond })
	ends(t, w.connect(w.socket()))
	require.Contains(t, <-w.told, "the request ends after ")
}

func TestNorIsASilentGuest(t *testing.T) {
	w := newWorld(t, t.Context(), func(h *Host) { h.patience = 50 * time.Millisecond })
	require.NoError(t, w.net.Attach(17, vsock.EndpointFunc(func(ctx context.Context, _ vsock.Addr, _ uint32) (vsock.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})))
	require.NoError(t, w.host.Serve(filepath.Join(w.dir, "silent"), 17))
	c := w.connect(filepath.Join(w.dir, "silent"))
	_, _ = io.WriteString(c, "CONNECT 5005\n") // on a slow machine it has been given up before
	ends(t, c)
	require.Contains(t, <-w.told, "CID 17 fails: ")
}

func TestTheEndOfAGuestEndsItsConnections(t *testing.T) {
	w := newWorld(t, t.Context())
	program, _ := w.joined()
	w.net.Detach(cid)
	ends(t, program)
}

func TestWhatAProgramHasSentArrivesThoughTheHostCloses(t *testing.T) {
	w := newWorld(t, t.Context())
	w.host.grace = time.Hour // it does not take that long: both ends close
	program, guest := w.joined()
	text := strings.Repeat("goodbye ", 10<<10)
	send(t, program, text)
	require.NoError(t, program.Close())
	closed := make(chan struct{})
	go func() { defer close(closed); w.host.Close() }()
	receive(t, guest, text)
	require.Equal(t, io.EOF, ends(t, guest))
	require.NoError(t, guest.Close())
	<-closed
}

func TestNothingIsLeftAfterClose(t *testing.T) {
	for name, end := range map[string]func(w *world, cancel func()){
		"by itself":       func(w *world, _ func()) { w.host.grace = 0 },
		"by its context":  func(w *world, cancel func()) { w.host.grace = time.Hour; cancel() },
		"by the switch's": func(w *world, cancel func()) { require.NoError(w, w.net.Close()); cancel() },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			w := newWorld(t, ctx)
			require.NoError(t, w.host.Forward(w.prefix(), 7000))
			l, err := net.Listen("unix", w.prefix()+"_7000")
			require.NoError(t, err)
			defer l.Close()
			program, guest := w.joined()
			silent := w.request("CONN")
			caller := w.dial(7000)
			callee, err := l.Accept()
			require.NoError(t, err)
			defer callee.Close()

			end(w, cancel)
			w.host.Close()
			for _, c := range []net.Conn{program, callee, silent} {
				ends(t, c)
			}
			for _, c := range []net.Conn{guest, caller} {
				require.ErrorIs(t, ends(t, c), unix.ECONNRESET)
			}
			require.NoFileExists(t, w.socket())
			if name != "by the switch's" {
				again, err := w.net.Listen(vsock.Addr{ContextID: vsock.CIDParent, Port: 7000})
				require.NoError(t, err, "the port is free again")
				require.NoError(t, again.Close())
			}
			w.host.Close() // once more does nothing
		})
	}
}

func TestWhatCannotBeServedIsToldInALine(t *testing.T) {
	w := newWorld(t, t.Context())
	info, err := os.Stat(w.socket())
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), "a socket is its user's alone")

	require.ErrorIs(t, w.host.Serve(w.socket(), 17), unix.EADDRINUSE)
	long := filepath.Join(w.dir, strings.Repeat("x", 100))
	require.ErrorContains(t, w.host.Serve(long, 17), "choose a shorter folder")
	require.ErrorContains(t, w.host.Forward(long, 7000), "choose a shorter folder")
	require.ErrorIs(t, w.host.Forward(w.prefix(), 0), unix.EINVAL)
	require.ErrorIs(t, w.host.Forward(w.prefix(), vsock.PortAny), unix.EINVAL)
	require.NoError(t, w.host.Forward(w.prefix(), 7000))
	require.ErrorIs(t, w.host.Forward(w.prefix(), 7000), unix.EADDRINUSE)
}

func FuzzRequest(f *testing.F) {
	for _, seed := range []string{"CONNECT 5005\nhello", "connect 0\n", "CONNECT 4294967295\n", "CONNECT  1 \r\n", "CONNECT\t1", "\n", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r := strings.NewReader(text)
		port, err := readRequest(r)
		read := text[:len(text)-r.Len()]
		require.LessOrEqual(t, len(read), maxRequest)
		if err != nil {
			require.NotContains(t, err.Error(), "\n")
			return
		}
		require.Equal(t, len(read)-1, strings.IndexByte(text, '\n'), "the line is read, and no more")
		require.NotEqual(t, vsock.PortAny, port)
		again, err := readRequest(strings.NewReader(fmt.Sprintf("CONNECT %d\n", port)))
		require.NoError(t, err)
		require.Equal(t, port, again)
	})
}
