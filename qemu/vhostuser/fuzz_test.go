package vhostuser_test

import (
	"encoding/binary"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/qemu/vhostuser"
	"github.com/nesim/nesim/qemu/vhostuser/vhosttest"
)

// memorySize is that of the guest: little, so that the hugest chain is quickly copied.
const memorySize = 64 << 10

const needReply = vhostuser.FlagNeedReply

// script is a sequence of messages as FuzzSession's input has it: of each, the
// request, the flags, how many descriptors go along (eventfds in the low four bits,
// the guest's memory in the high ones), the payload's length, and the payload.
type script []byte

func (s script) message(req vhostuser.Request, flags, fds byte, payload []byte) script {
	return append(append(s, byte(req), flags, fds, byte(len(payload))), payload...)
}

// start is how QEMU starts a queue whose ring is at an offset in memory.
func (s script) start(queue int, at uint64) script {
	q := uint64(queue)
	ring := vhosttest.UserBase + at
	return s.
		message(vhostuser.SetVringNum, 0, 0, vhosttest.State(queue, 8)).
		message(vhostuser.SetVringBase, 0, 0, vhosttest.State(queue, 0)).
		message(vhostuser.SetVringAddr, 0, 0, vhosttest.Words(q, ring, ring+0x200, ring+0x100, 0)).
		message(vhostuser.SetVringErr, 0, 1, vhosttest.Words(q)).
		message(vhostuser.SetVringKick, 0, 1, vhosttest.Words(q)).
		message(vhostuser.SetVringCall, 0, 1, vhosttest.Words(q)).
		message(vhostuser.SetVringEnable, needReply, 0, vhosttest.State(queue, 1))
}

// table is a memory table of n regions of a page each.
func table(n int) []byte {
	words := []uint64{uint64(n)}
	for i := range uint64(n) {
		at := i << 12
		words = append(words, vhosttest.GuestBase+at, 1<<12, vhosttest.UserBase+at, at)
	}
	return vhosttest.Words(words...)
}

// next takes the first message off the script.
func (s script) next(memory, eventfd int) (m *vhostuser.Message, rest script) {
	m = &vhostuser.Message{Request: vhostuser.Request(s[0]), Flags: uint32(s[1])}
	for range s[2] & 15 {
		m.FDs = append(m.FDs, eventfd)
	}
	for range s[2] >> 4 {
		m.FDs = append(m.FDs, memory)
	}
	n := min(int(s[3]), len(s)-4)
	m.Payload = s[4 : 4+n]
	return m, s[4+n:]
}

// Whatever a front end says, its session ends when it hangs up, and nothing is left.
func FuzzSession(f *testing.F) {
	head := func(req, flags, size uint32, payload ...byte) []byte {
		b := binary.LittleEndian.AppendUint32(nil, req)
		b = binary.LittleEndian.AppendUint32(b, flags)
		return append(binary.LittleEndian.AppendUint32(b, size), payload...)
	}
	for _, raw := range [][]byte{
		nil,
		head(1, 1, 0)[:5],
		append(head(1, 1, 0), head(15, 9, 0)...),
		head(2, 9, 8, vhosttest.Words(1<<32)...),
		head(8, 1, 8, 0, 0, 0),
		head(24, 1, 14, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 1),
		head(1, 1, 4096),
		head(1, 1, 4097),
		head(1, 2, 0),
		head(1, 1, 0xffffffff),
	} {
		f.Add(false, raw)
	}
	both := script{}.start(0, 0).start(1, 0x400)
	for _, s := range []script{
		both,
		both.message(vhostuser.GetVringBase, 0, 0, vhosttest.State(0, 0)).start(0, 0x800),
		both.message(vhostuser.SetVringEnable, needReply, 0, vhosttest.State(1, 0)).
			message(vhostuser.SetVringEnable, needReply, 0, vhosttest.State(1, 1)),
		both.message(vhostuser.SetMemTable, needReply, 0x20, table(2)).
			message(vhostuser.SetMemTable, needReply, 0x10, table(1)).
			message(vhostuser.SetMemTable, needReply, 0, table(0)).
			message(vhostuser.SetMemTable, needReply, 0, table(0)),
		both.message(vhostuser.SetVringKick, needReply, 1, vhosttest.Words(0)).
			message(vhostuser.SetVringCall, needReply, 0, vhosttest.Words(1|vhostuser.VringNoFD)).
			message(vhostuser.SetVringErr, needReply, 0, vhosttest.Words(1|vhostuser.VringNoFD)),
		both.message(vhostuser.SetFeatures, needReply, 0, vhosttest.Words(1<<30)).
			message(vhostuser.ResetOwner, needReply, 0, nil),
		script{}.start(0, 1), // misaligned
		script{}.start(0, 1<<16-0x80),
		script{}.message(vhostuser.GetConfig, 0, 0, append(make([]byte, 12), 1)),
		script{}.message(vhostuser.SetMemTable, needReply, 0x80, table(7)),
		script{}.message(vhostuser.SetVringCall, needReply, 0x91, vhosttest.Words(0)), // too many descriptors
		script{}.message(vhostuser.SetVringKick, needReply, 0x10, vhosttest.Words(0)), // not an eventfd
	} {
		f.Add(true, []byte(s))
	}
	f.Fuzz(func(t *testing.T, framed bool, data []byte) {
		vhosttest.CheckLeaks(t)
		dev := newEcho()
		dev.config = []byte{1, 2, 3, 4}
		front, done := serveMemory(t, dev, memorySize)
		if framed {
			front.Handshake(allFeatures)
		}
		answers := make(chan struct{})
		go func() {
			defer close(answers)
			io.Copy(io.Discard, front.Conn)
		}()
		if framed {
			script(data).play(t, front)
		} else {
			front.Conn.Write(data)
		}
		front.Conn.CloseWrite()
		<-done
		<-answers
		require.Equal(t, 1, dev.disconnected)
		require.Empty(t, dev.queues, "all queues have been stopped")
	})
}

// play sends the script's messages until the back end has enough.
func (s script) play(t *testing.T, front *vhosttest.FrontEnd) {
	eventfd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	require.NoError(t, err)
	defer unix.Close(eventfd)
	_, memory := front.MemTable()
	for len(s) >= 4 && err == nil {
		var m *vhostuser.Message
		m, s = s.next(memory[0], eventfd)
		err = vhostuser.WriteMessage(front.Conn, m)
	}
}

// Whatever a queue's areas hold, the device processes it or breaks it off, and a
// queue beside it and a new one in its place work.
func FuzzRing(f *testing.F) {
	const (
		num      = 8
		indirect = vhosttest.GuestBase // where the indirect table lies
		buffer   = vhosttest.GuestBase + 1<<14
	)
	offer := func(heads ...uint16) []byte {
		b := binary.LittleEndian.AppendUint16(nil, 0)
		b = binary.LittleEndian.AppendUint16(b, uint16(len(heads)))
		for _, h := range heads {
			b = binary.LittleEndian.AppendUint16(b, h)
		}
		return b
	}
	type desc struct {
		addr        uint64
		len         uint32
		flags, next uint16
	}
	descs := func(all ...desc) []byte {
		b := make([]byte, 16*len(all))
		for i, d := range all {
			vhosttest.PutDesc(b, i, d.addr, d.len, d.flags, d.next)
		}
		return b
	}
	const next, write, table = vhosttest.DescNext, vhosttest.DescWrite, vhosttest.DescIndirect
	request := descs(desc{buffer, 300, next, 1}, desc{buffer + 512, 300, write, 0})
	f.Add(request, offer(0), []byte{})
	f.Add(request, offer(0, 0, 0, 0, 0, 0, 0, 0), []byte{})
	f.Add(request, []byte{0, 0, 9, 0}, []byte{})
	f.Add(request, []byte{1, 0, 255, 255}, []byte{})
	f.Add(descs(desc{indirect, 32, table, 0}), offer(0, 0), request)
	f.Add(descs(desc{buffer, 1, next, 1}, desc{indirect, 32, table, 0}), offer(0, 1), request)
	f.Add(descs(desc{indirect, 16, table | next, 1}), offer(0), request)
	f.Add(descs(desc{indirect, 32, table, 0}), offer(0), descs(desc{buffer, 1, next, 1}, desc{buffer, 1, next, 0}))
	f.Add(descs(desc{indirect, 32, table, 0}), offer(0), descs(desc{indirect, 32, table, 0}))
	f.Add(descs(desc{buffer, 1, next, 1}, desc{buffer, 1, next, 0}), offer(0), []byte{})
	f.Add(descs(desc{buffer, 1, next | write, 1}, desc{buffer, 1, 0, 0}), offer(0), []byte{})
	// All of the memory, read into all of the memory.
	f.Add(descs(desc{vhosttest.GuestBase, memorySize, next, 1}, desc{vhosttest.GuestBase, memorySize, write, 0}), offer(0), []byte{1, 2, 3})
	f.Add(descs(desc{vhosttest.GuestBase + memorySize - 1, 2, 0, 0}), offer(0), []byte{})

	f.Fuzz(func(t *testing.T, table, avail, indirect []byte) {
		vhosttest.CheckLeaks(t)
		dev := newEcho()
		front, _ := serveMemory(t, dev, memorySize)
		front.Handshake(allFeatures)
		tables, _ := front.Alloc(64 * 16)
		copy(tables, indirect)
		bad := front.NewRing(0, num, allFeatures)
		copy(bad.Desc, table)
		copy(bad.Avail, avail)
		require.True(t, bad.Start(0))
		if q := dev.queue(0); q != nil {
			q.Run() // as a kick does, but now
		}
		select {
		case err := <-dev.stopped:
			require.Error(t, err)
			bad.WaitError()
		default: // it has been processed
		}
		working(t, front, 1)
		bad.Stop()
		working(t, front, 0)
	})
}

// working makes sure that a queue works with a new ring.
func working(t *testing.T, front *vhosttest.FrontEnd, queue int) {
	r := front.NewRing(queue, 8, allFeatures)
	clear(r.Desc) // the device may have written here
	clear(r.Avail)
	clear(r.Used)
	require.True(t, r.Start(0))
	in := request(front, r, 0, "fine", 4)
	r.Offer(0)
	r.Kick()
	r.Wait()
	require.Equal(t, "fine", string(in))
}
