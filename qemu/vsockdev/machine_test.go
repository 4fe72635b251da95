package vsockdev

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Every packet in every state.
func TestTransitions(t *testing.T) {
	shut := func(flags uint32) header { return header{op: opShutdown, flags: flags} }
	op := func(op uint16) header { return header{op: op} }
	asked := func(m *machine) { m.due = 0 } // the REQUEST has been sent
	for _, tc := range []struct {
		from    state
		with    func(*machine)
		in      header
		to      state
		verdict verdict
		err     error
	}{
		{requesting, asked, op(0), requesting, nothing, nil},
		{requesting, asked, op(opRequest), gone, answer, unix.EPROTO},
		{requesting, asked, op(opResponse), open, nothing, nil},
		{requesting, nil, op(opResponse), gone, answer, unix.EPROTO}, // before it was asked
		{requesting, asked, op(opRst), gone, nothing, unix.ECONNRESET},
		{requesting, asked, shut(shutdownBoth), gone, answer, unix.EPROTO},
		{requesting, asked, op(opRW), gone, answer, unix.EPROTO},
		{requesting, asked, op(opCreditUpdate), gone, answer, unix.EPROTO},
		{requesting, asked, op(opCreditRequest), gone, answer, unix.EPROTO},
		{requesting, asked, op(99), gone, answer, unix.EPROTO},

		{deciding, nil, op(opRst), gone, nothing, unix.ECONNRESET},
		{deciding, nil, op(opRequest), gone, answer, unix.EPROTO},
		{deciding, nil, op(opRW), gone, answer, unix.EPROTO},
		{deciding, nil, shut(shutdownBoth), gone, answer, unix.EPROTO},

		{open, nil, op(0), open, nothing, nil},
		{open, nil, op(opRequest), open, nothing, nil},
		{open, nil, op(opResponse), open, nothing, nil},
		{open, nil, op(opRst), gone, nothing, unix.ECONNRESET},
		{open, nil, shut(0), open, nothing, nil},
		{open, nil, shut(0xfffffffc), open, nothing, nil},
		{open, nil, shut(shutdownRcv), open, nothing, nil},
		{open, nil, shut(shutdownSend), open, nothing, nil},
		{open, nil, shut(shutdownBoth), gone, answer, nil},
		{open, func(m *machine) { m.peerShut = shutdownRcv }, shut(shutdownSend), gone, answer, nil},
		{open, func(m *machine) { m.peerShut = shutdownSend }, op(opRW), open, nothing, nil},
		{open, func(m *machine) { m.peerShut = shutdownSend }, op(opRst), gone, nothing, nil},
		{open, nil, op(opRW), open, deliver, nil},
		{open, nil, header{op: opRW, len: bufAlloc}, open, deliver, nil},
		{open, func(m *machine) { m.held = 1 }, header{op: opRW, len: bufAlloc}, gone, answer, unix.ENOBUFS},
		{open, nil, op(opCreditUpdate), open, nothing, nil},
		{open, nil, op(opCreditRequest), open, nothing, nil},
		{open, nil, op(99), open, nothing, nil},

		{closing, nil, op(opRst), gone, nothing, unix.ECONNRESET},
		{closing, nil, op(opRequest), gone, answer, nil},
		{closing, nil, op(opResponse), closing, nothing, nil},
		{closing, nil, shut(shutdownSend), closing, nothing, nil},
		{closing, nil, shut(shutdownBoth), gone, answer, nil},
		{closing, nil, header{op: opRW, len: bufAlloc + 1}, closing, nothing, nil},
		{closing, nil, op(opCreditRequest), closing, nothing, nil},

		{gone, nil, op(opRst), gone, nothing, nil},
		{gone, nil, op(opRW), gone, answer, nil},
		{gone, nil, op(opRequest), gone, answer, nil},
	} {
		t.Run(fmt.Sprintf("%d-op%d-flags%x", tc.from, tc.in.op, tc.in.flags), func(t *testing.T) {
			m := machine{state: tc.from}
			if tc.from == requesting {
				m.due = bit(opRequest)
			}
			if tc.with != nil {
				tc.with(&m)
			}
			require.Equal(t, tc.verdict, m.receive(&tc.in))
			require.Equal(t, tc.to, m.state)
			require.Equal(t, tc.err, m.err)
			if m.state == gone {
				require.False(t, m.busy(100), "it has nothing more to say")
			}
		})
	}
}

// due returns the ops that m sends now, with n bytes of data and buffers of room.
func due(m *machine, n, room int) (ops []uint16, sent int) {
	for m.busy(n - sent) {
		var h header
		m.next(&h, n-sent, room)
		ops = append(ops, h.op)
		sent += int(h.len)
	}
	return ops, sent
}

func TestWhatIsSentInWhichOrder(t *testing.T) {
	m := machine{state: requesting, due: bit(opRequest)}
	ops, _ := due(&m, 10, 100)
	require.Equal(t, []uint16{opRequest}, ops)
	m.receive(&header{op: opResponse, bufAlloc: 100})
	ops, sent := due(&m, 10, 4)
	require.Equal(t, []uint16{opRW, opRW, opRW}, ops)
	require.Equal(t, 10, sent)

	m = machine{state: deciding}
	m.credit(100, 0)
	require.False(t, m.busy(10))
	m.shutdown(shutdownSend)
	require.False(t, m.busy(10))
	m.accept()
	ops, _ = due(&m, 0, 1)
	require.Equal(t, []uint16{opResponse, opShutdown}, ops)

	m = machine{state: open}
	m.credit(100, 0)
	m.receive(&header{op: opCreditRequest, bufAlloc: 100})
	ops, _ = due(&m, 1, 10)
	require.Equal(t, []uint16{opRW}, ops, "data carries the credit, too")
	m.receive(&header{op: opCreditRequest, bufAlloc: 100})
	ops, _ = due(&m, 0, 10)
	require.Equal(t, []uint16{opCreditUpdate}, ops)
}

func TestCreditBoundsWhatIsSent(t *testing.T) {
	m := machine{state: open, txCnt: 1<<32 - 10, peerFwd: 1<<32 - 10} // the counters wrap around
	m.peerAlloc = 100
	ops, sent := due(&m, 1000, 1000)
	require.Equal(t, []uint16{opRW, opCreditRequest}, ops, "asked once")
	require.Equal(t, 100, sent)
	ops, _ = due(&m, 1000, 1000)
	require.Empty(t, ops)

	m.receive(&header{op: opCreditUpdate, bufAlloc: 100, fwdCnt: 20}) // 30 of 100 are taken
	_, sent = due(&m, 1000, 1000)
	require.Equal(t, 30, sent)
	m.receive(&header{op: opCreditUpdate, bufAlloc: 50, fwdCnt: 20}) // a buffer that shrinks
	require.Zero(t, m.room())
	m.receive(&header{op: opCreditUpdate, bufAlloc: 50, fwdCnt: 1 << 31}) // nonsense
	require.Zero(t, m.room())
	m.receive(&header{op: opCreditUpdate, bufAlloc: 0xffffffff, fwdCnt: m.txCnt})
	require.Equal(t, maxPayload, m.sendable(1<<20), "packets have their limit as well")
}

func TestReaderGivesCreditBack(t *testing.T) {
	m := machine{state: open}
	for range 3 {
		for m.held < bufAlloc {
			require.Equal(t, deliver, m.receive(&header{op: opRW, len: bufAlloc / 4}))
		}
		m.consume(bufAlloc/2 - 1)
		require.False(t, m.busy(0))
		m.consume(1)
		ops, _ := due(&m, 0, 1)
		require.Equal(t, []uint16{opCreditUpdate}, ops)
		m.consume(bufAlloc / 2)
		due(&m, 0, 1)
	}
	require.EqualValues(t, 3*bufAlloc, m.sentFwd)
}

func TestShutdown(t *testing.T) {
	m := machine{state: requesting, due: bit(opRequest)}
	require.Equal(t, nothing, m.shutdown(shutdownBoth), "the guest has not heard of it")
	require.Equal(t, gone, m.state)

	m = machine{state: requesting}
	require.Equal(t, answer, m.shutdown(shutdownBoth))
	m = machine{state: deciding}
	require.Equal(t, nothing, m.shutdown(shutdownBoth))
	m.accept()
	require.Equal(t, closing, m.state)
	ops, _ := due(&m, 0, 1)
	require.Equal(t, []uint16{opResponse, opShutdown}, ops)

	m = machine{state: open, peerAlloc: 100}
	m.shutdown(shutdownSend)
	require.Zero(t, m.sendable(1))
	require.Equal(t, open, m.state)
	var h header
	require.True(t, m.busy(0))
	m.next(&h, 0, 1)
	require.EqualValues(t, shutdownSend, h.flags)
	m.shutdown(shutdownSend)
	require.False(t, m.busy(0), "said once")
	m.shutdown(shutdownBoth)
	require.Equal(t, closing, m.state)
	require.True(t, m.busy(0))
	m.next(&h, 0, 1)
	require.EqualValues(t, shutdownBoth, h.flags)
	m.receive(&header{op: opRst})
	require.Equal(t, gone, m.state)
}
