package vfiouser

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// FuzzStream feeds a server any bytes in any pieces, with descriptors: it must end,
// and leave nothing open.
func FuzzStream(f *testing.F) {
	version := message(CmdVersion, 0, appendVersion(nil, 0, limits()))
	f.Add(version, uint8(16), uint8(0))
	f.Add(join(version, message(CmdDeviceReset, 0, nil)), uint8(255), uint8(3))
	f.Add(join(version, message(CmdRegionRead, 0, join(u64s(0), u32s(0, 64)))), uint8(1), uint8(1))
	f.Add(join(version, message(CmdDMAMap, 0, join(u32s(32, 3), u64s(0, 0x1000, 4096)))), uint8(200), uint8(1))
	f.Add(join(version, message(CmdDeviceSetIRQs, 0, u32s(20, 0x24, 2, 0, 2))), uint8(200), uint8(2))
	f.Add([]byte{1, 0, 1, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0}, uint8(3), uint8(20))
	f.Fuzz(func(t *testing.T, data []byte, piece, nfds uint8) {
		fx, conn := serve(t)
		st, err := newStream(conn, maxMessage)
		require.NoError(t, err)
		defer st.close()
		var drain sync.WaitGroup
		drain.Go(func() {
			b := make([]byte, 4096)
			for {
				if n, err := unix.Read(st.fd, b); n <= 0 && err != unix.EINTR {
					return
				}
			}
		})
		fd := eventfd(t)
		for len(data) > 0 {
			n := min(len(data), int(piece)+1)
			var fds []int
			for range nfds % 20 {
				fds = append(fds, fd)
			}
			if st.send(data[:n], fds) != nil {
				break // the server hung up
			}
			data = data[n:]
		}
		unix.Shutdown(st.fd, unix.SHUT_WR)
		_ = fx.ended(t)
		st.shutdown()
		drain.Wait()
	})
}

// FuzzMessage gives a server one framed message of any command and payload: what it
// does must stay in bounds, and its reply must be well formed.
func FuzzMessage(f *testing.F) {
	add := func(cmd Command, payload []byte, nfds uint8) { f.Add(uint16(cmd), uint32(0), payload, nfds) }
	add(CmdVersion, appendVersion(nil, 1, limits()), 0)
	add(CmdDMAMap, join(u32s(32, 3), u64s(0, 0x1000, 4096)), 1)
	add(CmdDMAUnmap, join(u32s(24, 0), u64s(0x1000, 4096)), 0)
	add(CmdDMAUnmap, join(u32s(24, 2), u64s(0, 0)), 0)
	add(CmdDeviceGetInfo, u32s(16, 0, 0, 0), 0)
	add(CmdDeviceGetRegionInfo, u32s(32, 0, 3, 0, 0, 0, 0, 0), 0)
	add(CmdDeviceGetIRQInfo, u32s(16, 0, 2, 0), 0)
	add(CmdDeviceSetIRQs, u32s(20, 0x24, 2, 0, 2), 2)
	add(CmdDeviceSetIRQs, join(u32s(22, 0x22, 2, 0, 2), []byte{0, 1}), 0)
	add(CmdRegionRead, join(u64s(8), u32s(0, 8)), 0)
	add(CmdRegionWrite, join(u64s(8), u32s(0, 4), []byte("abcd")), 0)
	add(CmdDeviceReset, nil, 0)
	add(CmdRegionWriteMulti, make([]byte, 32), 0)
	f.Fuzz(func(t *testing.T, cmd uint16, flags uint32, payload []byte, nfds uint8) {
		s := &Server{Device: newTestDevice(), DMA: new(DMA), IRQs: NewIRQs(2)}
		c := connection{server: s, regions: s.Device.Regions(), out: make([]byte, 0, maxMessage), version: cmd != uint16(CmdVersion)}
		defer s.DMA.UnmapAll()
		defer s.IRQs.Disable()
		file := memfd(t, 1<<16)
		fds := make([]int, nfds%(MaxMessageFDs+1))
		for i := range fds {
			fds[i] = dup(t, file)
		}
		if len(payload) > maxMessage-headerSize {
			payload = payload[:maxMessage-headerSize]
		}
		h := header{id: 7, cmd: Command(cmd), size: uint32(headerSize + len(payload)), flags: flags}
		reply := c.handle(h, payload, fds, 0)
		for _, fd := range fds {
			closeFD(fd)
		}
		if flags&flagNoReply != 0 {
			require.Nil(t, reply)
			return
		}
		re := parseHeader(reply)
		require.EqualValues(t, len(reply), re.size)
		require.Equal(t, h.id, re.id)
		require.Equal(t, h.cmd, re.cmd)
		if re.flags&flagError != 0 {
			require.Len(t, reply, headerSize)
			require.NotZero(t, re.errno)
		} else {
			require.EqualValues(t, flagReply, re.flags)
			require.Zero(t, re.errno)
		}
		// A copy of memory reached by DMA stays within the file.
		_ = s.DMA.ReadAt(make([]byte, 8192), 0x1000)
	})
}
