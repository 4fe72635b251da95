package vhostuser_test

import (
	"context"
	"encoding/binary"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/qemu/vhostuser"
	"github.com/nesim/nesim/qemu/vhostuser/vhosttest"
)

func TestConfigIsOfferedOnlyWhereThereIsOne(t *testing.T) {
	for _, config := range [][]byte{nil, {1, 2, 3, 4}} {
		dev := newEcho()
		dev.config = config
		f, _ := serve(t, dev)
		features := binary.LittleEndian.Uint64(f.Get(vhostuser.GetProtocolFeatures, nil))
		require.Equal(t, config != nil, features&vhostuser.ProtocolConfig != 0)
		require.EqualValues(t, 2, binary.LittleEndian.Uint64(f.Get(vhostuser.GetQueueNum, nil)))
	}
}

func TestConfigCanBeReadInPieces(t *testing.T) {
	dev := newEcho()
	dev.config = []byte{1, 2, 3, 4}
	f, _ := serve(t, dev)
	read := func(off, size uint32, room int) []byte {
		p := make([]byte, 12+room)
		binary.LittleEndian.PutUint32(p, off)
		binary.LittleEndian.PutUint32(p[4:], size)
		return f.Get(vhostuser.GetConfig, p)
	}
	require.Equal(t, []byte{1, 2, 3, 4, 0, 0}, read(0, 6, 6)[12:])
	require.Equal(t, []byte{3}, read(2, 1, 1)[12:])
	require.Equal(t, []byte{0, 0}, read(0xffffffff, 2, 2)[12:])
	require.Empty(t, read(0, 0xffffffff, 2), "a size that is not that of the payload")
}

func TestQueueGoesOnWhereItStopped(t *testing.T) {
	vhosttest.CheckLeaks(t)
	f, _ := serve(t, newEcho())
	f.Handshake(allFeatures)
	r := f.NewRing(0, 4, allFeatures)
	in := request(f, r, 0, "again", 5)
	require.True(t, r.Start(0))
	for round := range 3 {
		for range 3 {
			r.Offer(0)
			r.Kick()
			r.Wait()
		}
		r.Offer(0) // while it stops
		base := r.Stop()
		_, _, done := r.Pop()
		require.Equal(t, 4*round+3, base-map[bool]int{true: 1}[done])
		clear(in)
		require.True(t, r.Start(base))
		if !done {
			r.Wait()
			require.Equal(t, "again", string(in))
		}
	}
}

func TestQueueIsDisabledAndEnabled(t *testing.T) {
	dev := newEcho()
	f, _ := serve(t, dev)
	f.Handshake(allFeatures)
	r := f.NewRing(0, 4, allFeatures)
	request(f, r, 0, "x", 1)
	require.True(t, r.Start(0))
	f.MustSet(vhostuser.SetVringEnable, vhosttest.State(0, 0))
	require.NoError(t, <-dev.stopped)
	r.Offer(0)
	r.ForceKick()
	_, _, ok := r.Pop()
	require.False(t, ok)
	f.MustSet(vhostuser.SetVringEnable, vhosttest.State(0, 1))
	r.Wait()
}

func TestMemoryTableChangesUnderARunningQueue(t *testing.T) {
	dev := newEcho()
	f, _ := serve(t, dev)
	f.Handshake(allFeatures)
	r := f.NewRing(0, 4, allFeatures)
	in := request(f, r, 0, "move", 4)
	require.True(t, r.Start(0))
	for range 20 {
		clear(in)
		r.Offer(0)
		r.Kick()
		table, fds := f.MemTable()
		f.MustSet(vhostuser.SetMemTable, table, fds...)
		r.Wait()
		require.Equal(t, "move", string(in))
	}
	f.MustSet(vhostuser.SetMemTable, make([]byte, 8)) // no memory at all
	r.WaitError()
	require.ErrorContains(t, <-dev.stopped, "not in guest memory")
}

func TestMemoryTableIsChecked(t *testing.T) {
	vhosttest.CheckLeaks(t)
	f, _ := serve(t, newEcho())
	f.Handshake(allFeatures)
	const size = 64 << 10
	sealed := vhosttest.Memfd(t, size, unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL)
	sealable := vhosttest.Memfd(t, size, 0)
	unsealed := vhosttest.Memfd(t, size, unix.F_SEAL_SEAL)
	plain, err := os.Create(filepath.Join(t.TempDir(), "plain"))
	require.NoError(t, err)
	defer plain.Close()
	require.NoError(t, plain.Truncate(size))
	file := func(f *os.File) int { return int(f.Fd()) }

	const guest, user = 0, 1 << 40
	for _, tc := range []struct {
		name  string
		table []uint64
		fds   []int
		ok    bool
	}{
		{"sealed", []uint64{1, guest, size, user, 0}, []int{file(sealed)}, true},
		{"sealed by us", []uint64{1, guest, size, user, 0}, []int{file(sealable)}, true},
		{"offset inside a page", []uint64{1, guest, 100, user, 4090}, []int{file(sealed)}, true},
		{"may shrink", []uint64{1, guest, size, user, 0}, []int{file(unsealed)}, false},
		{"no memfd", []uint64{1, guest, size, user, 0}, []int{file(plain)}, false},
		{"longer than its file", []uint64{1, guest, size + 1, user, 0}, []int{file(sealed)}, false},
		{"behind its file", []uint64{1, guest, 1, user, size}, []int{file(sealed)}, false},
		{"empty", []uint64{1, guest, 0, user, 0}, []int{file(sealed)}, false},
		{"huge", []uint64{1, guest, 1 << 63, user, 1 << 63}, []int{file(sealed)}, false},
		{"huge offset", []uint64{1, guest, size, user, 1<<64 - 4096}, []int{file(sealed)}, false},
		{"guest address wraps", []uint64{1, 1<<64 - 4096, size, user, 0}, []int{file(sealed)}, false},
		{"user address wraps", []uint64{1, guest, size, 1<<64 - 4096, 0}, []int{file(sealed)}, false},
		{"too many", []uint64{9}, nil, false},
		{"very many", []uint64{0xffffffff}, nil, false},
		{"no descriptor", []uint64{1, guest, size, user, 0}, nil, false},
		{"cut off", []uint64{2, guest, size, user, 0}, []int{file(sealed), file(sealed)}, false},
		{"overlap for the guest", []uint64{2, guest, size, user, 0, guest + 1, 1, 0, 0}, []int{file(sealed), file(sealed)}, false},
		{"overlap for the front end", []uint64{2, guest, size, user, 0, 1 << 32, 1, user + size - 1, 0}, []int{file(sealed), file(sealed)}, false},
	} {
		require.Equal(t, tc.ok, f.Set(vhostuser.SetMemTable, vhosttest.Words(tc.table...), tc.fds...), tc.name)
	}
}

func TestRequestsAreChecked(t *testing.T) {
	vhosttest.CheckLeaks(t)
	f, _ := serve(t, newEcho())
	f.Handshake(allFeatures)
	table, tableFDs := f.MemTable()
	r := f.NewRing(0, 4, allFeatures)
	for _, tc := range []struct {
		name    string
		req     vhostuser.Request
		payload []byte
		fds     []int
	}{
		{"features that were not offered", vhostuser.SetFeatures, vhosttest.Words(1 << 33), nil},
		{"short features", vhostuser.SetFeatures, []byte{1}, nil},
		{"queue 2 of 2", vhostuser.SetVringNum, vhosttest.State(2, 4), nil},
		{"queue far away", vhostuser.SetVringEnable, vhosttest.State(-1, 1), nil},
		{"no size", vhostuser.SetVringNum, vhosttest.State(0, 0), nil},
		{"odd size", vhostuser.SetVringNum, vhosttest.State(0, 3), nil},
		{"huge size", vhostuser.SetVringNum, vhosttest.State(0, 32768), nil},
		{"huge index", vhostuser.SetVringBase, vhosttest.State(0, 65536), nil},
		{"short address", vhostuser.SetVringAddr, make([]byte, 39), nil},
		{"kick without descriptor", vhostuser.SetVringKick, vhosttest.Words(0), nil},
		{"polling", vhostuser.SetVringKick, vhosttest.Words(vhostuser.VringNoFD), nil},
		{"kick that is a file", vhostuser.SetVringKick, vhosttest.Words(0), tableFDs[:1]},
		{"two calls", vhostuser.SetVringCall, vhosttest.Words(0), tableFDs},
		{"configuration", vhostuser.SetConfig, make([]byte, 12), nil},
		{"unknown", 99, nil, nil},
		{"memory without descriptors", vhostuser.SetMemTable, table, nil},
	} {
		require.False(t, f.Set(tc.req, tc.payload, tc.fds...), tc.name)
	}
	require.True(t, r.Start(0), "none of that did harm")
	require.False(t, f.Set(vhostuser.SetVringNum, vhosttest.State(0, 8)), "the queue is running")
	require.False(t, f.Set(vhostuser.SetVringAddr, make([]byte, 40)), "the queue is running")
}

func TestQueueIsNotStartedWithoutItsParts(t *testing.T) {
	f, _ := serve(t, newEcho())
	f.Handshake(allFeatures)
	require.True(t, f.Set(vhostuser.SetVringEnable, vhosttest.State(0, 1)))
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	require.NoError(t, err)
	defer unix.Close(fd)
	require.False(t, f.Set(vhostuser.SetVringKick, vhosttest.Words(0), fd))
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	require.NoError(t, err)
	require.NotZero(t, flags&unix.O_NONBLOCK, "nobody blocks on an eventfd")

	r := f.NewRing(1, 4, allFeatures)
	r.Avail = r.Avail[1:] // misaligned
	require.False(t, r.Start(0))
	r.WaitError()
}

func TestLegacyDriverIsRefused(t *testing.T) {
	f, _ := serve(t, newEcho())
	f.Handshake(0)
	require.False(t, f.NewRing(0, 4, 0).Start(0))
}

func TestFrontEndThatBreaksTheProtocolIsLeft(t *testing.T) {
	head := func(req, flags, size uint32) []byte {
		b := binary.LittleEndian.AppendUint32(nil, req)
		b = binary.LittleEndian.AppendUint32(b, flags)
		return binary.LittleEndian.AppendUint32(b, size)
	}
	for _, tc := range []struct {
		name string
		send []byte
		want string
	}{
		{"version", head(1, 2, 0), "version 2"},
		{"size", head(1, 1, 1<<30), "payload"},
		{"unknown request", head(1000, 1, 0), "request 1000: not supported"},
		{"refused request", append(head(2, 1, 8), vhosttest.Words(1<<63)...), "SET_FEATURES: features 0x8000000000000000 were not offered"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			vhosttest.CheckLeaks(t)
			dev := newEcho()
			f, done := serve(t, dev)
			f.Conn.Write(tc.send)
			require.ErrorContains(t, <-done, tc.want)
			require.Equal(t, 1, dev.disconnected)
		})
	}
}

func TestFrontEndHangsUp(t *testing.T) {
	vhosttest.CheckLeaks(t)
	for _, cut := range [][]byte{nil, {1, 0, 0}, {1, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 1}} {
		dev := newEcho()
		f, done := serve(t, dev)
		f.Handshake(allFeatures)
		require.True(t, f.NewRing(0, 4, allFeatures).Start(0))
		f.Conn.Write(cut)
		f.Close()
		require.NoError(t, <-done)
		require.NoError(t, <-dev.stopped)
		require.Equal(t, 1, dev.disconnected)
	}
}

func TestServeTakesOneFrontEndAfterTheOther(t *testing.T) {
	vhosttest.CheckLeaks(t)
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- vhostuser.Serve(ctx, l, newEcho()) }()
	for i := range 3 {
		c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path})
		require.NoError(t, err)
		f := vhosttest.New(t, c, 1<<20)
		f.Handshake(allFeatures)
		r := f.NewRing(0, 4, allFeatures)
		request(f, r, 0, "x", 1)
		require.True(t, r.Start(0))
		r.Offer(0)
		r.Kick()
		r.Wait()
		if i < 2 {
			f.Close()
		}
	}
	cancel()
	require.NoError(t, <-done)
}
