package parent

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nesim/nesim/internal/guestwire"
	"github.com/nesim/nesim/sim/vsock"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// instance is a switch with enclaves 16 and 17 on it. The bubble's clock stands still while anything runs, and its
// end tells of every goroutine that was left.
type instance struct {
	*testing.T
	*vsock.Switch
	beats *Heartbeats
}

func test(t *testing.T, f func(i *instance)) {
	synctest.Test(t, func(t *testing.T) {
		sw := vsock.New()
		i := &instance{T: t, Switch: sw, beats: New(sw)}
		i.boot(16)
		i.boot(17)
		f(i)
		require.NoError(t, sw.Close())
		require.Empty(t, i.beats.parked)
		require.Empty(t, i.beats.waiting)
	})
}

func (i *instance) boot(cid uint32) {
	none := vsock.EndpointFunc(func(context.Context, vsock.Addr, uint32) (vsock.Conn, error) {
		return nil, unix.ECONNREFUSED
	})
	require.NoError(i, i.Attach(cid, none))
}

func (i *instance) expect() *Expectation {
	e, err := i.beats.Expect()
	require.NoError(i, err)
	return e
}

// dial is what an enclave's init does first.
func (i *instance) dial(cid uint32) vsock.Conn {
	c, err := i.Dial(i.Context(), vsock.Addr{ContextID: cid}, vsock.Addr{ContextID: vsock.CIDParent, Port: guestwire.HeartbeatPort})
	require.NoError(i, err)
	return c
}

func (i *instance) send(c vsock.Conn, b byte) {
	_, err := c.Write([]byte{b})
	require.NoError(i, err)
}

func (i *instance) answered(c vsock.Conn) {
	b, err := io.ReadAll(c)
	require.NoError(i, err)
	require.Equal(i, []byte{guestwire.Heartbeat}, b)
	c.Close()
}

func TestHeartbeatIsHeardAndSentBack(t *testing.T) {
	for name, early := range map[string]bool{"before Wait": true, "during Wait": false} {
		t.Run(name, func(t *testing.T) {
			test(t, func(i *instance) {
				e := i.expect()
				defer e.Close()
				enclave := func() {
					c := i.dial(16)
					i.send(c, guestwire.Heartbeat)
					i.answered(c)
				}
				if early {
					go enclave()
					synctest.Wait()
				} else {
					time.AfterFunc(time.Second, enclave)
				}
				require.NoError(t, e.Wait(i.Context(), 16, time.Minute, nil))
			})
		})
	}
}

func TestEnclavesStartingAtOnceShareThePort(t *testing.T) {
	test(t, func(i *instance) {
		a, b := i.expect(), i.expect()
		second := i.dial(17)
		i.send(second, guestwire.Heartbeat)
		var wg sync.WaitGroup
		wg.Go(func() { require.ErrorIs(t, a.Wait(i.Context(), 16, time.Minute, nil), ErrTimeout) })
		wg.Go(func() { require.NoError(t, b.Wait(i.Context(), 17, time.Minute, nil)) })
		i.answered(second)
		wg.Wait()
		a.Close()
		i.dial(16)
		b.Close()
		b.Close()
		_, err := i.Dial(i.Context(), vsock.Addr{ContextID: 16}, vsock.Addr{ContextID: 3, Port: guestwire.HeartbeatPort})
		require.ErrorIs(t, err, unix.ECONNREFUSED, "nobody listens when nothing is expected")
	})
}

func TestThePortMayBeTaken(t *testing.T) {
	test(t, func(i *instance) {
		ln, err := i.Listen(vsock.Addr{ContextID: vsock.CIDParent, Port: guestwire.HeartbeatPort})
		require.NoError(t, err)
		_, err = i.beats.Expect()
		require.ErrorIs(t, err, unix.EADDRINUSE)
		require.NoError(t, ln.Close())
		i.expect().Close()
	})
}

func TestBadHeartbeats(t *testing.T) {
	for name, c := range map[string]struct {
		enclave func(*instance, vsock.Conn)
		want    string
	}{
		"wrong byte": {
			func(i *instance, c vsock.Conn) { i.send(c, 0x42) },
			"the enclave with CID 16, on port 9000: bad heartbeat: it sent 0x42, not 0xb7",
		},
		"closed": {
			func(i *instance, c vsock.Conn) { c.Close() },
			"the enclave with CID 16, on port 9000: bad heartbeat: it closed the connection before",
		},
	} {
		t.Run(name, func(t *testing.T) {
			test(t, func(i *instance) {
				e := i.expect()
				defer e.Close()
				c.enclave(i, i.dial(16))
				err := e.Wait(i.Context(), 16, time.Minute, nil)
				require.ErrorIs(t, err, ErrBadHeartbeat)
				require.EqualError(t, err, c.want)
			})
		})
	}
}

func TestASilentEnclaveTimesOut(t *testing.T) {
	for name, connects := range map[string]bool{"no connection": false, "no byte": true} {
		t.Run(name, func(t *testing.T) {
			test(t, func(i *instance) {
				e := i.expect()
				defer e.Close()
				if connects {
					i.dial(16)
				}
				began := time.Now()
				err := e.Wait(i.Context(), 16, Timeout(1, 1), make(chan struct{}))
				require.ErrorIs(t, err, ErrTimeout)
				require.EqualError(t, err, "no heartbeat from the enclave with CID 16 on port 9000 within 3m0s: time-out")
				require.Equal(t, 180*time.Second, time.Since(began))
			})
		})
	}
}

func TestAnEnclaveThatEnds(t *testing.T) {
	test(t, func(i *instance) {
		ended := make(chan struct{})
		close(ended)
		e := i.expect()
		defer e.Close()
		require.ErrorIs(t, e.Wait(i.Context(), 16, time.Minute, ended), ErrEnded)

		c := i.dial(17)
		i.send(c, guestwire.Heartbeat)
		require.NoError(t, e.Wait(i.Context(), 17, time.Minute, ended), "what it had said before counts")
	})
}

func TestTheCallerGoes(t *testing.T) {
	test(t, func(i *instance) {
		e := i.expect()
		defer e.Close()
		ctx, cancel := context.WithCancelCause(i.Context())
		bored := errors.New("the user went away")
		time.AfterFunc(time.Second, func() { cancel(bored) })
		require.ErrorIs(t, e.Wait(ctx, 16, time.Minute, nil), bored)
	})
}

func TestAConnectionOfAnEarlierEnclaveIsNoAnswer(t *testing.T) {
	test(t, func(i *instance) {
		e := i.expect()
		defer e.Close()
		i.dial(16)
		synctest.Wait()
		i.Detach(16)
		i.boot(16)
		time.AfterFunc(time.Second, func() { i.send(i.dial(16), guestwire.Heartbeat) })
		require.NoError(t, e.Wait(i.Context(), 16, time.Minute, nil))
	})
}

func TestFloodsAreBounded(t *testing.T) {
	test(t, func(i *instance) {
		e := i.expect()
		for range 10 {
			i.dial(16)
			synctest.Wait()
		}
		for cid := range uint32(2 * maxParked) {
			i.boot(100 + cid)
			i.dial(100 + cid)
			synctest.Wait()
		}
		require.Len(t, i.beats.parked, maxParked)
		e.Close()
	})
}

func TestTimeoutIsNitroCLIs(t *testing.T) {
	const gib = 1 << 30
	for _, c := range []struct {
		eif, memory uint64
		want        time.Duration
	}{
		{2 * gib, 32 * gib, 180 * time.Second},
		{6 * gib, 32 * gib, 180 * time.Second},
		{6*gib + 1, 100 * gib, 270 * time.Second},
		{10 * gib, 128 * gib, 360 * time.Second},
		{0, 0, 180 * time.Second},
	} {
		require.Equal(t, c.want, Timeout(c.eif, c.memory))
	}
	require.Positive(t, Timeout(1<<64-1, 1<<64-1))
}
