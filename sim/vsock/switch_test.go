package vsock

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// enclave is a scripted endpoint: it queues what is dialled into it.
type enclave struct {
	cid   uint32
	conns chan *Stream
}

func newEnclave(cid uint32) *enclave { return &enclave{cid: cid, conns: make(chan *Stream, 16)} }

func (e *enclave) Dial(ctx context.Context, src Addr, port uint32) (Conn, error) {
	near, far := Pipe(src, Addr{ContextID: e.cid, Port: port})
	select {
	case e.conns <- far:
		return near, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// connect opens a connection as a guest does through its device; it returns the guest's end.
func connect(s *Switch, src, dst Addr) (*Stream, error) {
	guest, host := Pipe(src, dst)
	if err := s.Connect(context.Background(), host); err != nil {
		return nil, err
	}
	return guest, nil
}

// test runs f in a bubble: it ends only if no goroutine is left, and its clock stands still while anything runs.
func test(t *testing.T, f func(t *testing.T, s *Switch)) {
	synctest.Test(t, func(t *testing.T) {
		s := New()
		f(t, s)
		require.NoError(t, s.Close())
		require.Empty(t, s.guests)
		require.Empty(t, s.listeners)
	})
}

func accept(t *testing.T, ln net.Listener) Conn {
	t.Helper()
	c, err := ln.Accept()
	require.NoError(t, err)
	return c.(Conn)
}

func send(t *testing.T, c Conn, text string) {
	t.Helper()
	_, err := c.Write([]byte(text))
	require.NoError(t, err)
}

func receive(t *testing.T, c Conn, text string) {
	t.Helper()
	buf := make([]byte, len(text))
	_, err := io.ReadFull(c, buf)
	require.NoError(t, err)
	require.Equal(t, text, string(buf))
}

var heartbeat = Addr{ContextID: CIDParent, Port: 9000}

func TestEnclaveReachesTheParent(t *testing.T) {
	test(t, func(t *testing.T, s *Switch) {
		ln, err := s.Listen(heartbeat)
		require.NoError(t, err)
		require.NoError(t, s.Attach(16, newEnclave(16)))

		src := Addr{ContextID: 16, Port: 2000}
		guest, err := connect(s, src, heartbeat)
		require.NoError(t, err)
		c := accept(t, ln)
		require.Equal(t, &src, c.RemoteAddr())
		require.Equal(t, &heartbeat, c.LocalAddr())

		send(t, guest, "up")
		receive(t, c, "up")
		send(t, c, "down")
		receive(t, guest, "down")
		require.NoError(t, c.Close())
		_, err = guest.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err)
	})
}

func TestParentReachesEnclavesFromAPortOfItsOwn(t *testing.T) {
	test(t, func(t *testing.T, s *Switch) {
		e := newEnclave(16)
		require.NoError(t, s.Attach(16, e))
		parent, dst := Addr{ContextID: CIDParent}, Addr{ContextID: 16, Port: 5005}

		ports := map[uint32]bool{}
		for range 10 {
			c, err := s.Dial(t.Context(), parent, dst)
			require.NoError(t, err)
			far := <-e.conns
			src := *far.RemoteAddr().(*Addr)
			require.Equal(t, CIDParent, src.ContextID)
			require.Greater(t, src.Port, uint32(1023))
			require.False(t, ports[src.Port], "port %d given twice", src.Port)
			ports[src.Port] = true
			send(t, c, "x")
			receive(t, far, "x")
		}

		named := Addr{ContextID: CIDParent, Port: 77}
		c, err := s.Dial(t.Context(), named, dst)
		require.NoError(t, err)
		_, err = s.Dial(t.Context(), named, dst)
		require.ErrorIs(t, err, unix.EADDRINUSE)
		require.NoError(t, c.Close())
		c, err = s.Dial(t.Context(), named, dst)
		require.NoError(t, err, "the port is free after Close")
		require.NoError(t, c.Close())
	})
}

func TestChosenPortsWrapAndSkipThoseInUse(t *testing.T) {
	test(t, func(t *testing.T, s *Switch) {
		s.nextPort = PortAny - 1
		a, err := s.Listen(Addr{ContextID: CIDParent, Port: PortAny})
		require.NoError(t, err)
		require.Equal(t, PortAny-1, a.Addr().(*Addr).Port)
		_, err = s.Listen(Addr{ContextID: CIDParent, Port: 1024})
		require.NoError(t, err)
		c, err := s.Listen(Addr{ContextID: CIDParent})
		require.NoError(t, err)
		require.Equal(t, uint32(1025), c.Addr().(*Addr).Port)
	})
}

func TestWhoMayReachWhom(t *testing.T) {
	test(t, func(t *testing.T, s *Switch) {
		console := Addr{ContextID: CIDHypervisor, Port: ConsolePortBase + 16}
		for _, a := range []Addr{heartbeat, console} {
			_, err := s.Listen(a)
			require.NoError(t, err)
		}
		require.NoError(t, s.Attach(16, newEnclave(16)))
		require.NoError(t, s.Attach(17, newEnclave(17)))

		for _, c := range []struct {
			src, dst Addr
			err      error
		}{
			{Addr{ContextID: 3}, console, nil},
			{Addr{ContextID: 3}, heartbeat, nil},
			{Addr{ContextID: 3}, Addr{ContextID: 16, Port: 1}, nil},
			{Addr{ContextID: 3}, Addr{ContextID: 3, Port: 1}, unix.ECONNREFUSED},
			{Addr{ContextID: 3}, Addr{ContextID: 0, Port: 1}, unix.ECONNREFUSED},
			{Addr{ContextID: 3}, Addr{ContextID: 18, Port: 1}, unix.EHOSTUNREACH},
			{Addr{ContextID: 3}, Addr{ContextID: 2, Port: 1}, unix.ENETUNREACH},
			{Addr{ContextID: 3}, Addr{ContextID: CIDAny, Port: 1}, unix.ENETUNREACH},
			{Addr{ContextID: 16}, heartbeat, nil},
			{Addr{ContextID: 16}, console, unix.ENETUNREACH},
			{Addr{ContextID: 16}, Addr{ContextID: 17, Port: 1}, unix.ENETUNREACH},
			{Addr{ContextID: 16}, Addr{ContextID: 2, Port: 1}, unix.ENETUNREACH},
			{Addr{ContextID: 16}, Addr{ContextID: 3, Port: 1}, unix.ECONNREFUSED},
			{Addr{ContextID: 99}, heartbeat, unix.EADDRNOTAVAIL},
			{Addr{ContextID: 0}, heartbeat, unix.ENETUNREACH},
		} {
			conn, err := s.Dial(t.Context(), c.src, c.dst)
			if c.err == nil {
				require.NoError(t, err)
				conn.Close()
				continue
			}
			require.ErrorIs(t, err, c.err, "%v to %v", &c.src, &c.dst)
			var op *net.OpError
			require.ErrorAs(t, err, &op)
			require.Equal(t, &c.dst, op.Addr)
		}
		_, err := connect(s, Addr{ContextID: 16, Port: 5}, Addr{ContextID: 17, Port: 5})
		require.EqualError(t, err, "dial vsock vm(16):5->vm(17):5: network is unreachable")
		_, err = connect(s, Addr{ContextID: 99, Port: 5}, heartbeat)
		require.ErrorIs(t, err, unix.EADDRNOTAVAIL, "nobody speaks for a CID that is not attached")
		_, err = connect(s, Addr{ContextID: 3, Port: 5}, heartbeat)
		require.ErrorIs(t, err, unix.EADDRNOTAVAIL, "no guest may pass for the parent")
		require.Len(t, s.bound, 2, "refused dials give their ports free")
	})
}

func TestAddressesBelongToOne(t *testing.T) {
	test(t, func(t *testing.T, s *Switch) {
		ln, err := s.Listen(heartbeat)
		require.NoError(t, err)
		_, err = s.Listen(heartbeat)
		require.ErrorIs(t, err, unix.EADDRINUSE)
		_, err = s.Listen(Addr{ContextID: 16, Port: 1})
		require.ErrorIs(t, err, unix.EADDRNOTAVAIL)
		require.NoError(t, ln.Close())
		require.ErrorIs(t, ln.Close(), net.ErrClosed)
		_, err = s.Listen(heartbeat)
		require.NoError(t, err)

		require.NoError(t, s.Attach(16, newEnclave(16)))
		require.ErrorIs(t, s.Attach(16, newEnclave(16)), unix.EADDRINUSE)
		for _, cid := range []uint32{0, 1, 2, CIDAny} {
			require.ErrorIs(t, s.Attach(cid, newEnclave(cid)), unix.EADDRNOTAVAIL)
		}
		s.Detach(16)
		s.Detach(16)
		require.NoError(t, s.Attach(16, newEnclave(16)))
	})
}

func TestFullBacklogRefuses(t *testing.T) {
	test(t, func(t *testing.T, s *Switch) {
		ln, err := s.Listen(heartbeat)
		require.NoError(t, err)
		require.NoError(t, s.Attach(16, newEnclave(16)))
		var waiting []*Stream
		for i := range uint32(Backlog) {
			c, err := connect(s, Addr{ContextID: 16, Port: i}, heartbeat)
			require.NoError(t, err)
			waiting = append(waiting, c)
		}
		_, err = connect(s, Addr{ContextID: 16, Port: Backlog}, heartbeat)
		require.ErrorIs(t, err, unix.ECONNREFUSED)
		_, err = s.Dial(t.Context(), Addr{ContextID: 3}, heartbeat)
		require.ErrorIs(t, err, unix.ECONNREFUSED)

		accepted := accept(t, ln)
		_, err = connect(s, Addr{ContextID: 16, Port: Backlog}, heartbeat)
		require.NoError(t, err)

		require.NoError(t, ln.Close())
		_, err = waiting[1].Read(make([]byte, 1))
		require.ErrorIs(t, err, unix.ECONNRESET, "those that waited are reset")
		send(t, waiting[0], "alive")
		receive(t, accepted, "alive")
		_, err = ln.Accept()
		require.ErrorIs(t, err, net.ErrClosed)
		accepted.Close()
		require.Empty(t, s.links)
	})
}

func TestCloseEndsAccept(t *testing.T) {
	test(t, func(t *testing.T, s *Switch) {
		ln, err := s.Listen(heartbeat)
		require.NoError(t, err)
		got := make(chan error)
		go func() { _, err := ln.Accept(); got <- err }()
		synctest.Wait()
		require.NoError(t, s.Close())
		require.ErrorIs(t, <-got, net.ErrClosed)
		_, err = s.Listen(heartbeat)
		require.ErrorIs(t, err, net.ErrClosed)
		require.ErrorIs(t, s.Attach(16, newEnclave(16)), net.ErrClosed)
		_, err = s.Dial(t.Context(), Addr{ContextID: 3}, heartbeat)
		require.ErrorIs(t, err, net.ErrClosed)
	})
}

func TestDetachResetsTheEnclavesConnectionsOnly(t *testing.T) {
	test(t, func(t *testing.T, s *Switch) {
		ln, err := s.Listen(heartbeat)
		require.NoError(t, err)
		e := newEnclave(16)
		require.NoError(t, s.Attach(16, e))
		require.NoError(t, s.Attach(17, newEnclave(17)))
		out, err := s.Dial(t.Context(), Addr{ContextID: 3}, Addr{ContextID: 16, Port: 1})
		require.NoError(t, err)
		guest, err := connect(s, Addr{ContextID: 16, Port: 1}, heartbeat)
		require.NoError(t, err)
		in := accept(t, ln)
		other, err := connect(s, Addr{ContextID: 17, Port: 1}, heartbeat)
		require.NoError(t, err)
		otherIn := accept(t, ln)

		send(t, guest, "last words")
		s.Detach(16)
		receive(t, in, "last words")
		for _, c := range []Conn{out, in} {
			_, err = c.Read(make([]byte, 1))
			require.ErrorIs(t, err, unix.ECONNRESET)
			_, err = c.Write([]byte("x"))
			require.ErrorIs(t, err, unix.ECONNRESET)
			require.NoError(t, c.Close())
		}
		send(t, other, "here")
		receive(t, otherIn, "here")
		_, err = s.Dial(t.Context(), Addr{ContextID: 3}, Addr{ContextID: 16, Port: 1})
		require.ErrorIs(t, err, unix.EHOSTUNREACH)
	})
}

func TestADialEndsWithItsContextItsEnclaveAndTheSwitch(t *testing.T) {
	hangs := EndpointFunc(func(ctx context.Context, _ Addr, _ uint32) (Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	for name, c := range map[string]struct {
		end  func(s *Switch, cancel func())
		want error
	}{
		"context": {func(_ *Switch, cancel func()) { cancel() }, context.Canceled},
		"detach":  {func(s *Switch, _ func()) { s.Detach(16) }, unix.ECONNRESET},
		"close":   {func(s *Switch, _ func()) { s.Close() }, net.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			test(t, func(t *testing.T, s *Switch) {
				require.NoError(t, s.Attach(16, hangs))
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				got := make(chan error)
				go func() {
					_, err := s.Dial(ctx, Addr{ContextID: 3}, Addr{ContextID: 16, Port: 1})
					got <- err
				}()
				synctest.Wait()
				go c.end(s, cancel)
				require.ErrorIs(t, <-got, c.want)
				synctest.Wait()
				require.Empty(t, s.bound)
			})
		})
	}
}

// bare is a connection that cannot be reset, only closed.
type bare struct{ net.Conn }

func (b *bare) CloseWrite() error { return nil }

func (b *bare) Close() error { return b.Conn.Close() }

func TestAConnectionWithoutResetIsClosedAndTellsOfTheReset(t *testing.T) {
	test(t, func(t *testing.T, s *Switch) {
		near, far := net.Pipe()
		require.NoError(t, s.Attach(16, EndpointFunc(func(context.Context, Addr, uint32) (Conn, error) {
			return &bare{Conn: near}, nil
		})))
		c, err := s.Dial(t.Context(), Addr{ContextID: 3}, Addr{ContextID: 16, Port: 1})
		require.NoError(t, err)
		s.Detach(16)
		_, err = c.Read(make([]byte, 1))
		require.ErrorIs(t, err, unix.ECONNRESET)
		_, err = far.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err)
	})
}

func TestAPrimaryVMTakesTheParentsPlace(t *testing.T) {
	test(t, func(t *testing.T, s *Switch) {
		vm, e := newEnclave(CIDParent), newEnclave(16)
		require.NoError(t, s.Attach(CIDParent, vm))
		require.NoError(t, s.Attach(16, e))
		console, err := s.Listen(Addr{ContextID: CIDHypervisor, Port: ConsolePortBase + 16})
		require.NoError(t, err)

		guest, err := connect(s, Addr{ContextID: 16, Port: 1}, heartbeat)
		require.NoError(t, err)
		parent := <-vm.conns
		send(t, guest, "heartbeat")
		receive(t, parent, "heartbeat")
		require.NoError(t, parent.CloseWrite())
		_, err = guest.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err)
		send(t, guest, "more")
		receive(t, parent, "more")
		require.NoError(t, guest.Close())

		dialled, err := connect(s, Addr{ContextID: CIDParent, Port: 2}, Addr{ContextID: 16, Port: 5005})
		require.NoError(t, err)
		inside := <-e.conns
		send(t, dialled, "echo")
		receive(t, inside, "echo")

		text, err := connect(s, Addr{ContextID: CIDParent, Port: 3}, *console.Addr().(*Addr))
		require.NoError(t, err)
		c := accept(t, console)
		send(t, c, "booting")
		receive(t, text, "booting")

		s.Detach(16)
		_, err = dialled.Read(make([]byte, 1))
		require.ErrorIs(t, err, unix.ECONNRESET)
	})
}

func TestManyConnectionsAtOnceWhileEnclavesComeAndGo(t *testing.T) {
	s := New()
	ln, err := s.Listen(heartbeat)
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { io.Copy(c, c); c.Close() })
		}
	})
	for cid := uint32(16); cid < 24; cid++ {
		wg.Go(func() {
			for range 50 {
				e := newEnclave(cid)
				if s.Attach(cid, e) != nil {
					return
				}
				var inside sync.WaitGroup
				inside.Go(func() {
					for range 4 {
						c, err := s.Dial(context.Background(), Addr{ContextID: 3}, Addr{ContextID: cid, Port: 1})
						if err != nil {
							return
						}
						c.Write([]byte("x"))
						c.Close()
					}
				})
				inside.Go(func() {
					c, err := connect(s, Addr{ContextID: cid, Port: 1}, heartbeat)
					if err != nil {
						return
					}
					c.Write(bytes.Repeat([]byte("y"), 1000))
					io.ReadFull(c, make([]byte, 1000))
					c.Close()
				})
				if cid%2 == 0 {
					inside.Wait()
				}
				s.Detach(cid)
				inside.Wait()
			}
		})
	}
	time.Sleep(time.Millisecond)
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	time.AfterFunc(300*time.Millisecond, func() { s.Close() })
	<-done
	require.NoError(t, s.Close())
	require.Empty(t, s.links)
	require.Empty(t, s.bound)
}

// The ports of consoles follow from CIDs: none is chosen, not even where the sum is the port 0 or PortAny.
func TestConsolesOfCIDsCloseToTheirEndAreReached(t *testing.T) {
	s := New()
	defer s.Close()
	for _, cid := range []uint32{PortAny - ConsolePortBase, PortAny - ConsolePortBase + 1, CIDAny - 1, 4} {
		addr := Addr{ContextID: CIDHypervisor, Port: cid + ConsolePortBase}
		ln, err := s.Listen(addr)
		require.NoError(t, err)
		require.Equal(t, &addr, ln.Addr())
		c, err := s.Dial(t.Context(), Addr{ContextID: CIDParent, Port: PortAny}, addr)
		require.NoError(t, err)
		far, err := ln.Accept()
		require.NoError(t, err)
		c.Close()
		far.Close()
	}
}
