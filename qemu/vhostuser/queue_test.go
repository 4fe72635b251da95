package vhostuser_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/qemu/vhostuser"
	"github.com/nesim/nesim/qemu/vhostuser/vhosttest"
)

func TestChainsComeBackWithTheDevicesBytes(t *testing.T) {
	vhosttest.CheckLeaks(t)
	for _, features := range []uint64{vhostuser.FeatureVersion1, allFeatures} {
		t.Run(fmt.Sprintf("%#x", features), func(t *testing.T) {
			f, _ := serve(t, newEcho())
			require.Equal(t, allFeatures|1<<30, f.Handshake(features))
			r := f.NewRing(0, 8, features)
			require.True(t, r.Start(0))
			in := request(f, r, 2, "hello", 16)
			for i := range 70_000 { // the indexes wrap around
				clear(in)
				r.Offer(2)
				r.Kick()
				head, n := r.Wait()
				require.Equal(t, 2, head, i)
				require.Equal(t, "hello", string(in[:n]), i)
			}
		})
	}
}

func TestIndirectTable(t *testing.T) {
	f, _ := serve(t, newEcho())
	f.Handshake(allFeatures)
	r := f.NewRing(1, 4, allFeatures)
	require.True(t, r.Start(0))

	table, tableAddr := f.Alloc(16 * 3)
	out, outAddr := f.Alloc(8)
	in, inAddr := f.Alloc(8)
	copy(out, "abcdefgh")
	vhosttest.PutDesc(table, 0, outAddr, 3, vhosttest.DescNext, 2)
	vhosttest.PutDesc(table, 2, outAddr+3, 5, vhosttest.DescNext, 1)
	vhosttest.PutDesc(table, 1, inAddr, 8, vhosttest.DescWrite, 0)
	r.SetDesc(3, tableAddr, 16*3, vhosttest.DescIndirect, 0)
	r.Offer(3)
	r.Kick()
	head, n := r.Wait()
	require.Equal(t, 3, head)
	require.Equal(t, "abcdefgh", string(in[:n]))
}

func TestBufferAcrossTwoRegions(t *testing.T) {
	f, _ := serve(t, newEcho())
	f.Handshake(allFeatures)
	r := f.NewRing(0, 4, allFeatures)
	require.True(t, r.Start(0))
	middle := len(f.Mem) / 2
	copy(f.Mem[middle-2:], "over")
	r.SetDesc(0, vhosttest.GuestBase+uint64(middle)-2, 4, vhosttest.DescNext, 1)
	in, inAddr := f.Alloc(4)
	r.SetDesc(1, inAddr, 4, vhosttest.DescWrite, 0)
	r.Offer(0)
	r.Kick()
	r.Wait()
	require.Equal(t, "over", string(in))
}

// A burst costs the guest few interrupts and few kicks.
func TestNotificationsAreSuppressed(t *testing.T) {
	for _, features := range []uint64{vhostuser.FeatureVersion1, allFeatures} {
		t.Run(fmt.Sprintf("%#x", features), func(t *testing.T) {
			f, _ := serve(t, newEcho())
			f.Handshake(features)
			r := f.NewRing(0, 256, features)
			request(f, r, 0, "x", 1)
			require.True(t, r.Start(0))
			const n = 200
			for range n {
				r.Offer(0)
			}
			r.Kick()
			for range n {
				r.Wait()
			}
			require.Equal(t, 1, r.Kicks)
			require.Less(t, r.Calls, n/4)
		})
	}
}

func TestDeviceRunsAQueueByItself(t *testing.T) {
	dev := newEcho()
	var ready atomic.Bool
	dev.gate = ready.Load
	f, _ := serve(t, dev)
	f.Handshake(allFeatures)
	r := f.NewRing(0, 4, allFeatures)
	request(f, r, 0, "x", 1)
	require.True(t, r.Start(0))
	r.Offer(0)
	r.Kick()
	q := dev.queue(0)
	q.Run()
	_, _, ok := r.Pop()
	require.False(t, ok, "the gate is shut")
	ready.Store(true)
	q.Run()
	_, _, ok = r.Pop()
	require.True(t, ok)
	require.Equal(t, 0, q.Index())
	require.EqualValues(t, allFeatures, q.Features())

	r.Stop()
	r.Offer(0)
	q.Run() // a queue that has stopped stays so
	_, _, ok = r.Pop()
	require.False(t, ok)
}

// Each hostile ring breaks its own queue, and no more than that.
func TestHostileRings(t *testing.T) {
	const num = 8
	end := uint64(vhosttest.GuestBase + 1<<20)
	for _, tc := range []struct {
		name string
		make func(f *vhosttest.FrontEnd, r *vhosttest.Ring)
		want string
	}{
		{"loop", func(f *vhosttest.FrontEnd, r *vhosttest.Ring) {
			r.SetDesc(0, vhosttest.GuestBase, 1, vhosttest.DescNext, 1)
			r.SetDesc(1, vhosttest.GuestBase, 1, vhosttest.DescNext, 0)
			r.Offer(0)
		}, "loop"},
		{"head outside the table", func(f *vhosttest.FrontEnd, r *vhosttest.Ring) {
			r.Offer(num)
		}, "index is outside"},
		{"next outside the table", func(f *vhosttest.FrontEnd, r *vhosttest.Ring) {
			r.SetDesc(0, vhosttest.GuestBase, 1, vhosttest.DescNext, 0xffff)
			r.Offer(0)
		}, "index is outside"},
		{"address before memory", func(f *vhosttest.FrontEnd, r *vhosttest.Ring) {
			r.SetDesc(0, vhosttest.GuestBase-1, 1, 0, 0)
			r.Offer(0)
		}, "outside guest memory"},
		{"address behind memory", func(f *vhosttest.FrontEnd, r *vhosttest.Ring) {
			r.SetDesc(0, end, 1, vhosttest.DescWrite, 0)
			r.Offer(0)
		}, "outside guest memory"},
		{"length over the end", func(f *vhosttest.FrontEnd, r *vhosttest.Ring) {
			r.SetDesc(0, end-1, 2, 0, 0)
			r.Offer(0)
		}, "outside guest memory"},
		{"huge length", func(f *vhosttest.FrontEnd, r *vhosttest.Ring) {
			r.SetDesc(0, vhosttest.GuestBase, 0xffffffff, 0, 0)
			r.Offer(0)
		}, "outside guest memory"},
		{"address wraps around", func(f *vhosttest.FrontEnd, r *vhosttest.Ring) {
			r.SetDesc(0, 0xffffffffffffffff, 0xffffffff, 0, 0)
			r.Offer(0)
		}, "outside guest memory"},
		{"read after write", func(f *vhosttest.FrontEnd, r *vhosttest.Ring) {
			r.SetDesc(0, vhosttest.GuestBase, 1, vhosttest.DescNext|vhosttest.DescWrite, 1)
			r.SetDesc(1, vhosttest.GuestBase, 1, 0, 0)
			r.Offer(0)
		}, "follows one for writing"},
		{"available index jumps", func(f *vhosttest.FrontEnd, r *vhosttest.Ring) {
			r.SetAvail(0, num+1)
		}, "jumped"},
		{"available index goes back", func(f *vhosttest.FrontEnd, r *vhosttest.Ring) {
			r.SetAvail(0, 0xffff)
		}, "jumped"},
		{"indirect in indirect", func(f *vhosttest.FrontEnd, r *vhosttest.Ring) {
			table, addr := f.Alloc(16)
			vhosttest.PutDesc(table, 0, addr, 16, vhosttest.DescIndirect, 0)
			r.SetDesc(0, addr, 16, vhosttest.DescIndirect, 0)
			r.Offer(0)
		}, "inside an indirect table"},
		{"indirect with next", func(f *vhosttest.FrontEnd, r *vhosttest.Ring) {
			r.SetDesc(0, vhosttest.GuestBase, 16, vhosttest.DescIndirect|vhosttest.DescNext, 1)
			r.Offer(0)
		}, "not the last"},
		{"indirect of no size", func(f *vhosttest.FrontEnd, r *vhosttest.Ring) {
			r.SetDesc(0, vhosttest.GuestBase, 0, vhosttest.DescIndirect, 0)
			r.Offer(0)
		}, "indirect table"},
		{"indirect of odd size", func(f *vhosttest.FrontEnd, r *vhosttest.Ring) {
			r.SetDesc(0, vhosttest.GuestBase, 17, vhosttest.DescIndirect, 0)
			r.Offer(0)
		}, "indirect table"},
		{"indirect of huge size", func(f *vhosttest.FrontEnd, r *vhosttest.Ring) {
			r.SetDesc(0, vhosttest.GuestBase, 0xfffffff0, vhosttest.DescIndirect, 0)
			r.Offer(0)
		}, "indirect table"},
		{"indirect over the end", func(f *vhosttest.FrontEnd, r *vhosttest.Ring) {
			r.SetDesc(0, end-16, 32, vhosttest.DescIndirect, 0)
			r.Offer(0)
		}, "outside guest memory"},
		{"indirect misaligned", func(f *vhosttest.FrontEnd, r *vhosttest.Ring) {
			r.SetDesc(0, vhosttest.GuestBase+4, 16, vhosttest.DescIndirect, 0)
			r.Offer(0)
		}, "outside guest memory"},
		{"loop in indirect", func(f *vhosttest.FrontEnd, r *vhosttest.Ring) {
			table, addr := f.Alloc(32)
			vhosttest.PutDesc(table, 0, addr, 1, vhosttest.DescNext, 1)
			vhosttest.PutDesc(table, 1, addr, 1, vhosttest.DescNext, 0)
			r.SetDesc(0, addr, 32, vhosttest.DescIndirect, 0)
			r.Offer(0)
		}, "loop"},
		{"the device objects", func(f *vhosttest.FrontEnd, r *vhosttest.Ring) {
			request(f, r, 0, "poison", 1)
			r.Offer(0)
		}, "poisoned"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			vhosttest.CheckLeaks(t)
			dev := newEcho()
			f, _ := serve(t, dev)
			f.Handshake(allFeatures)
			bad, good := f.NewRing(0, num, allFeatures), f.NewRing(1, num, allFeatures)
			require.True(t, bad.Start(0))
			require.True(t, good.Start(0))
			tc.make(f, bad)
			bad.ForceKick()
			bad.WaitError()
			require.ErrorContains(t, <-dev.stopped, tc.want)

			in := request(f, good, 0, "fine", 4)
			good.Offer(0)
			good.Kick()
			good.Wait()
			require.Equal(t, "fine", string(in))

			// A driver that begins anew gets a working queue.
			bad.Stop()
			again := f.NewRing(0, num, allFeatures)
			require.True(t, again.Start(0))
			in = request(f, again, 0, "anew", 4)
			again.Offer(0)
			again.Kick()
			again.Wait()
			require.Equal(t, "anew", string(in))
		})
	}
}

func TestIndirectTableNeedsItsFeature(t *testing.T) {
	dev := newEcho()
	f, _ := serve(t, dev)
	f.Handshake(vhostuser.FeatureVersion1)
	r := f.NewRing(0, 4, vhostuser.FeatureVersion1)
	require.True(t, r.Start(0))
	r.SetDesc(0, vhosttest.GuestBase, 16, vhosttest.DescIndirect, 0)
	r.Offer(0)
	r.Kick()
	require.ErrorContains(t, <-dev.stopped, "VIRTIO_F_INDIRECT_DESC")
}
