package vsockdev

import (
	"bytes"
	"context"
	"io"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/qemu/vhostuser/vhosttest"
)

// plot is a sequence of packets as FuzzPackets' input has it: of each, the guest's
// port, the operation, the flags, the guest's buffer and how much of it is free
// again (both in units of 256 bytes), and how long the payload is (likewise).
type plot []byte

func (p plot) packet(port, op, flags, buf, fwd, n byte) plot {
	return append(p, port, op, flags, buf, fwd, n)
}

// next takes the first packet off the plot.
func (p plot) next(g *guest) (h header, payload []byte, rest plot) {
	h = g.stream(uint32(p[0]), 9000).out
	h.op, h.flags = uint16(p[1]), uint32(p[2])
	h.bufAlloc, h.fwdCnt = uint32(p[3])<<8, uint32(p[4])<<8
	return h, make([]byte, int(p[5])<<8), p[6:]
}

// Whatever packets a guest sends, those that come after them are served, and
// nothing is left. Ports 0 to 3 are connections that the guest has made, 4 to 7
// such that the host has made; raw is a packet's bytes.
func FuzzPackets(f *testing.F) {
	raw := func(h header, length int) []byte {
		var b [headerSize]byte
		h.len = uint32(length)
		h.encode(&b)
		return b[:]
	}
	open := header{srcCID: guestCID, srcPort: 1, dstCID: parent, dstPort: 9000, typ: typeStream, op: opRW}
	for _, p := range []plot{
		nil,
		plot{}.packet(0, opRW, 0, 255, 0, 100).packet(4, opRW, 0, 0, 0, 100).packet(4, opCreditUpdate, 0, 1, 0, 0),
		plot{}.packet(0, opShutdown, shutdownSend, 255, 0, 0).packet(0, opRW, 0, 0, 0, 1),
		plot{}.packet(4, opShutdown, shutdownBoth, 255, 0, 0).packet(4, opRW, 0, 0, 0, 1).packet(4, opRequest, 0, 0, 0, 0),
		plot{}.packet(0, opRst, 0, 0, 0, 0).packet(0, opRequest, 0, 2, 0, 0).packet(0, opRW, 0, 2, 0, 2).packet(0, opRW, 0, 2, 2, 2),
		plot{}.packet(9, opRequest, 0, 0, 0, 0).packet(9, opResponse, 0, 0, 0, 0).packet(9, opCreditRequest, 0, 0, 255, 0),
		bytes.Repeat(plot{}.packet(1, opRW, 0, 0, 0, 255), 5), // beyond its credit
		bytes.Repeat(plot{}.packet(2, opCreditRequest, 0, 0, 0, 0), 50),
	} {
		f.Add([]byte(p), []byte{})
	}
	f.Add([]byte{}, raw(open, 0))
	f.Add([]byte{}, append(raw(open, 4), "data"...))
	f.Add([]byte{}, append(raw(open, 5), "data"...))
	f.Add([]byte{}, raw(open, 0)[:headerSize-1])

	f.Fuzz(func(t *testing.T, script, raw []byte) {
		vhosttest.CheckLeaks(t)
		var hosts sync.WaitGroup
		defer hosts.Wait()
		echo := func(c *Conn) {
			hosts.Go(func() {
				defer c.Close()
				io.Copy(c, c)
			})
		}
		d := newDevice(t, Config{Connect: func(_ context.Context, c *Conn) error {
			echo(c)
			return nil
		}})
		defer d.Close()
		g := boot(t, d, shape{features: allFeatures, rxNum: 16, rxLen: 512, txNum: 4})
		for port := range uint32(8) {
			s := g.stream(port, 9000)
			if port < 4 {
				s.say(opRequest, 0, "")
				s.hear(opResponse)
				continue
			}
			c, err := g.dial(d, s)
			require.NoError(t, err)
			echo(c)
		}

		for p := plot(script); len(p) >= 6; g.skip() {
			var h header
			var payload []byte
			h, payload, p = p.next(g)
			g.put(h, payload)
			g.tx.Kick()
		}
		raw = raw[:min(len(raw), len(g.txBufs[0]))]
		slot := g.slot()
		copy(g.txBufs[slot], raw)
		g.raw(slot, len(raw))
		g.tx.Kick()
		g.idle()

		eventually(t, func() bool { g.skip(); return undecided(d) == 0 })
		s := g.stream(300, 9000)
		for has(d, s) {
			s.out.srcPort++
		}
		s.say(opRequest, 0, "")
		s.pick(opResponse)
		s.say(opRW, 0, "ping")
		require.Equal(t, "ping", s.pick(opRW))
		s.say(opShutdown, shutdownBoth, "")
		s.pick(opRst)
	})
}
