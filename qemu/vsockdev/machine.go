package vsockdev

import "golang.org/x/sys/unix"

// bufAlloc is the receive buffer that each connection offers the guest, in bytes;
// Linux's default (VSOCK_DEFAULT_BUFFER_SIZE in net/vmw_vsock/af_vsock.c).
const bufAlloc = 256 << 10

// state is where a connection is in its life.
type state uint8

const (
	requesting state = iota // we asked; the guest owes a RESPONSE
	deciding                // the guest asked; we owe a RESPONSE
	open                    // data may flow
	closing                 // we have shut down both directions; the guest owes a RST
	gone                    // no packet goes either way any more
)

// machine is the state of one connection: what a packet does to it and which
// packet is due. It does no I/O and knows no addresses. All counters of bytes wrap
// around, as those of the protocol do.
type machine struct {
	state state
	due   uint8 // control packets to be sent: a bit for each op
	err   error // why it is gone, unless it ended in good order

	sentShut uint32 // shutdown flags we have announced
	peerShut uint32 // and the guest

	held    uint32 // bytes received and not consumed
	fwdCnt  uint32 // bytes consumed
	sentFwd uint32 // fwdCnt as the guest last saw it

	txCnt     uint32 // bytes sent
	peerAlloc uint32 // the guest's buffer
	peerFwd   uint32 // bytes it has consumed
	asked     bool   // for credit, since the last that came
}

func bit(op uint16) uint8 { return 1 << op }

// verdict is what is to be done with a packet that was received.
type verdict uint8

const (
	nothing verdict = iota
	deliver         // its payload is for the reader
	answer          // send a RST: the connection is gone
)

// receive applies a packet of the guest's.
func (m *machine) receive(h *header) verdict {
	if m.state == gone {
		if h.op == opRst {
			return nothing
		}
		return answer
	}
	m.credit(h.bufAlloc, h.fwdCnt)
	if h.op == opRst {
		m.end(unix.ECONNRESET)
		return nothing
	}
	switch m.state {
	case requesting:
		return m.receiveRequesting(h)
	case deciding:
		return m.fail(unix.EPROTO) // it must wait for the RESPONSE
	case open:
		return m.receiveOpen(h)
	default:
		return m.receiveClosing(h)
	}
}

func (m *machine) receiveRequesting(h *header) verdict {
	switch h.op {
	case opResponse:
		if m.unheard() {
			return m.fail(unix.EPROTO)
		}
		m.state = open
		return nothing
	case 0:
		return nothing
	}
	return m.fail(unix.EPROTO)
}

func (m *machine) receiveOpen(h *header) verdict {
	switch h.op {
	case opRW:
		if m.peerShut&shutdownSend != 0 {
			m.fwdCnt += h.len // it said it would not
			return nothing
		}
		if h.len > bufAlloc-m.held {
			return m.fail(unix.ENOBUFS) // beyond its credit
		}
		m.held += h.len
		return deliver
	case opCreditRequest:
		m.due |= bit(opCreditUpdate)
	case opShutdown:
		m.peerShut |= h.flags & shutdownBoth
		if m.peerShut == shutdownBoth {
			m.end(nil)
			return answer
		}
	}
	return nothing
}

func (m *machine) receiveClosing(h *header) verdict {
	switch h.op {
	case opRW:
		m.fwdCnt += h.len // nobody is there to read it
	case opRequest: // the guest has forgotten us
		m.end(nil)
		return answer
	case opShutdown:
		m.peerShut |= h.flags & shutdownBoth
		if m.peerShut == shutdownBoth {
			m.end(nil)
			return answer
		}
	}
	return nothing
}

// unheard reports whether the guest has not heard of the connection yet.
func (m *machine) unheard() bool { return m.state == requesting && m.due&bit(opRequest) != 0 }

// credit takes over what every packet tells about the guest's buffer.
func (m *machine) credit(alloc, fwd uint32) {
	if alloc != m.peerAlloc || fwd != m.peerFwd {
		m.peerAlloc, m.peerFwd, m.asked = alloc, fwd, false
	}
}

// room is how many bytes the guest can take.
func (m *machine) room() uint32 {
	flying := m.txCnt - m.peerFwd
	if flying >= m.peerAlloc {
		return 0
	}
	return m.peerAlloc - flying
}

// end takes the connection out of service.
func (m *machine) end(err error) {
	m.state, m.due = gone, 0
	if m.err == nil && m.peerShut&shutdownSend == 0 {
		m.err = err
	}
}

// fail ends the connection with a RST.
func (m *machine) fail(err error) verdict {
	m.end(err)
	return answer
}

// accept answers the guest's REQUEST. The connection may have been shut down
// before that: then the guest hears of one after the other.
func (m *machine) accept() {
	m.state = open
	if m.sentShut == shutdownBoth {
		m.state = closing
	}
	m.due |= bit(opResponse)
}

// consume says that the reader has taken n bytes. The guest is told when half of
// its credit is used up: early enough that it need not stop, rarely enough to cost
// little.
func (m *machine) consume(n int) {
	m.held -= uint32(n)
	m.fwdCnt += uint32(n)
	if m.state == open && m.fwdCnt-m.sentFwd >= bufAlloc/2 {
		m.due |= bit(opCreditUpdate)
	}
}

// shutdown announces that we send no more, receive no more, or both; the latter
// is the beginning of the end. Data that is still to be sent is not.
func (m *machine) shutdown(flags uint32) verdict {
	switch m.state {
	case requesting:
		if m.unheard() {
			m.end(nil)
			return nothing
		}
		return m.fail(nil)
	case deciding, open:
		if m.sentShut|flags == m.sentShut {
			return nothing
		}
		m.sentShut |= flags
		m.due |= bit(opShutdown)
		if m.sentShut == shutdownBoth && m.state == open {
			m.state = closing
		}
	}
	return nothing
}

// sendable is how many of n bytes may be sent now.
func (m *machine) sendable(n int) int {
	if m.state != open || m.sentShut&shutdownSend != 0 || m.peerShut&shutdownRcv != 0 {
		return 0
	}
	return min(n, int(m.room()), maxPayload)
}

// busy reports whether a packet is due, given n bytes of data to send. Data without
// credit makes the machine ask for some, once.
func (m *machine) busy(n int) bool {
	if m.state == deciding || m.state == gone {
		return false
	}
	if n > 0 && m.state == open && m.room() == 0 && !m.asked {
		m.asked = true
		m.due |= bit(opCreditRequest)
	}
	return m.due != 0 || m.sendable(n) > 0
}

// next fills in the next packet that is due; busy(n) has said that there is one.
// n bytes of data are to be sent, of which room fit; h.len of them go along.
func (m *machine) next(h *header, n, room int) {
	h.len, h.flags = 0, 0
	switch {
	case m.take(opRequest):
		h.op = opRequest
	case m.take(opResponse):
		h.op = opResponse
	case m.sendable(n) > 0:
		h.op = opRW
		h.len = uint32(min(m.sendable(n), room))
		m.txCnt += h.len
		m.due &^= bit(opCreditUpdate) // every packet carries it
	case m.take(opCreditUpdate):
		h.op = opCreditUpdate
	case m.take(opCreditRequest):
		h.op = opCreditRequest
	case m.take(opShutdown):
		h.op, h.flags = opShutdown, m.sentShut
	}
	h.bufAlloc, h.fwdCnt = bufAlloc, m.fwdCnt
	m.sentFwd = m.fwdCnt
}

func (m *machine) take(op uint16) bool {
	had := m.due&bit(op) != 0
	m.due &^= bit(op)
	return had
}
