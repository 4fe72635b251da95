package vfiouser

import (
	"context"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestClientDrivesADevice(t *testing.T) {
	f, c := dial(t)

	info, err := c.Info()
	require.NoError(t, err)
	require.Equal(t, DeviceInfo{Flags: DeviceFlagReset | DeviceFlagPCI, NumRegions: NumRegions, NumIRQs: NumIRQs}, info)
	region, err := c.RegionInfo(1)
	require.NoError(t, err)
	require.Equal(t, Region{Size: 16, Flags: RegionFlagRead}, region)
	irq, err := c.IRQInfo(IRQMSIX)
	require.NoError(t, err)
	require.Equal(t, IRQInfo{Flags: IRQFlagEventfd | IRQFlagMaskable, Count: 2}, irq)
	irq, err = c.IRQInfo(0)
	require.NoError(t, err)
	require.Zero(t, irq)

	require.NoError(t, c.RegionWrite(0, 100, []byte("hello")))
	require.NoError(t, c.Post(0, Write{105, []byte(", ")}, Write{107, []byte("world")}))
	got := make([]byte, 12)
	require.NoError(t, c.RegionRead(0, 100, got))
	require.Equal(t, "hello, world", string(got))

	var refused *Error
	require.ErrorAs(t, c.RegionWrite(1, 0, []byte{1}), &refused)
	require.Equal(t, &Error{CmdRegionWrite, unix.EPERM}, refused)
	require.ErrorIs(t, c.RegionRead(0, 0, make([]byte, MaxTransfer+1)), unix.EMSGSIZE)
	require.NoError(t, c.Post(1, Write{0, []byte{1}}), "a posted write's refusal is not seen")

	require.NoError(t, c.Reset())
	require.Equal(t, 1, f.device.resetCount())

	fd := memfd(t, 8192)
	require.NoError(t, c.DMAMap(0x10000, 4096, fd, 4096, DMARead|DMAWrite))
	require.ErrorIs(t, c.DMAMap(0x10000, 4096, fd, 0, DMARead), unix.EEXIST)
	require.NoError(t, c.DMAMap(0x11000, 4096, -1, 0, DMARead))
	require.NoError(t, f.dma.WriteAt([]byte("dma"), 0x10000))
	b := make([]byte, 3)
	_, err = unix.Pread(fd, b, 4096)
	require.NoError(t, err)
	require.Equal(t, "dma", string(b))
	require.ErrorIs(t, c.DMAUnmap(0x10000, 8192), unix.ENOENT)
	require.NoError(t, c.DMAUnmap(0x10000, 4096))
	require.False(t, f.dma.Mapped(0x10000, 1))
}

func TestClientsGoroutinesShareAConnection(t *testing.T) {
	_, c := dial(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 50 {
				off := uint64(i * 64)
				want, got := []byte{byte(i), byte(n)}, make([]byte, 2)
				if err := c.RegionWrite(0, off, want); err != nil {
					t.Error(err)
				}
				if err := c.RegionRead(0, off, got); err != nil || got[1] != want[1] {
					t.Error(err, got)
				}
			}
		})
	}
	wg.Wait()
}

func TestInterrupts(t *testing.T) {
	f, c := dial(t)
	reply, err := c.NewInterrupt()
	require.NoError(t, err)
	defer reply.Close()
	event, err := c.NewInterrupt()
	require.NoError(t, err)
	defer event.Close()
	require.NoError(t, c.SetIRQs(IRQMSIX, 0, reply.FD(), event.FD()))

	f.irqs.Trigger(1)
	f.irqs.Trigger(0)
	require.NoError(t, reply.Wait(context.Background()))
	require.NoError(t, event.Wait(context.Background()))

	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	require.ErrorIs(t, event.Wait(ctx), context.DeadlineExceeded)

	f.irqs.Trigger(1)
	require.NoError(t, event.Wait(ctx), "what has been raised comes first")

	closed := make(chan error)
	go func() { closed <- event.Wait(context.Background()) }()
	event.Close()
	require.ErrorIs(t, <-closed, ErrClosed)
	require.ErrorIs(t, event.Wait(context.Background()), ErrClosed)
	require.NoError(t, event.Close())
}

func TestClientOfADyingServer(t *testing.T) {
	f, c := dial(t)
	irq, err := c.NewInterrupt()
	require.NoError(t, err)
	defer irq.Close()
	require.NoError(t, c.SetIRQs(IRQMSIX, 0, irq.FD()))
	waiter := make(chan error)
	go func() { waiter <- irq.Wait(context.Background()) }()

	f.cancel()
	require.ErrorIs(t, <-waiter, ErrClosed)
	require.ErrorIs(t, f.ended(t), context.Canceled)
	require.ErrorIs(t, c.RegionRead(0, 0, make([]byte, 4)), ErrClosed)
	require.ErrorIs(t, c.Post(0, Write{0, []byte{1}}), ErrClosed)
	require.ErrorIs(t, c.Reset(), ErrClosed)
	_, err = c.NewInterrupt()
	require.ErrorIs(t, err, ErrClosed)
}

func TestCloseEndsACallUnderWay(t *testing.T) {
	server, client := socketPair(t)
	defer server.Close()
	go answerVersion(server)
	c, err := NewClient(context.Background(), client)
	require.NoError(t, err)
	result := make(chan error)
	go func() { result <- c.Reset() }()
	b := make([]byte, 1)
	_, err = server.Read(b) // the call is under way
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.ErrorIs(t, <-result, ErrClosed)
	require.NoError(t, c.Close())
}

// answerVersion reads one message and answers it as VERSION's reply.
func answerVersion(server *net.UnixConn) {
	b := make([]byte, 4096)
	if _, err := server.Read(b); err != nil {
		return
	}
	h := parseHeader(b)
	re := message(CmdVersion, flagReply, appendVersion(nil, 0, capabilities{}))
	le.PutUint16(re, h.id)
	server.Write(re)
}

func TestClientOfAFaultyServer(t *testing.T) {
	for name, reply := range map[string][]byte{
		"another command's reply": message(CmdDeviceGetInfo, flagReply, make([]byte, 16)),
		"a command":               message(CmdRegionRead, 0, make([]byte, 20)),
		"too little data":         message(CmdRegionRead, flagReply, make([]byte, 18)),
		"too much data":           message(CmdRegionRead, flagReply, make([]byte, 1000)),
		"a broken size":           make([]byte, 64),
		"half a message":          message(CmdRegionRead, flagReply, make([]byte, 20))[:30],
		"far too long":            message(CmdRegionRead, flagReply, make([]byte, 2*maxMessage)),
	} {
		t.Run(name, func(t *testing.T) {
			server, client := socketPair(t)
			done := make(chan struct{})
			go func() {
				defer close(done)
				defer server.Close()
				answerVersion(server)
				b := make([]byte, 4096)
				if _, err := server.Read(b); err == nil {
					copy(reply, b[:2]) // the id is right
					server.WriteMsgUnix(reply, unix.UnixRights(0, 1), nil)
				}
			}()
			c, err := NewClient(context.Background(), client)
			require.NoError(t, err)
			err = c.RegionRead(0, 0, make([]byte, 4))
			require.Error(t, err)
			require.Equal(t, err, c.Reset(), "the connection is not used any more")
			c.Close()
			<-done
		})
	}
}

func TestDial(t *testing.T) {
	before := openFDs(t)
	path := filepath.Join(t.TempDir(), "pci.sock")
	_, err := Dial(context.Background(), path)
	require.ErrorContains(t, err, path)

	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	_, err = Dial(ctx, path) // nobody accepts
	require.ErrorIs(t, err, context.DeadlineExceeded)
	l.Close()
	require.Equal(t, before, openFDs(t))
}
