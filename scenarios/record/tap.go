package record

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/nesim/nesim/pcidev"
	"github.com/nesim/nesim/pcidev/vfiouser"
)

var le = binary.LittleEndian

// Sizes and flags of vfio-user's messages. Source: libvfio-user, docs/vfio-user.rst, "Header" and "VFIO region read".
const (
	headerSize = 16
	accessSize = 16
	maxMessage = headerSize + accessSize + vfiouser.MaxTransfer

	typeMask  = 0xf
	typeReply = 0x1
	isError   = 0x20
)

// message is a vfio-user message.
type message struct {
	id      uint16
	command vfiouser.Command
	flags   uint32
	payload []byte
}

// messages finds the messages in a stream of bytes. A stream that cannot be understood is looked at no more.
type messages struct {
	each   func(message)
	buf    []byte
	broken bool
}

func (m *messages) feed(p []byte) {
	if m.broken {
		return
	}
	m.buf = append(m.buf, p...)
	for len(m.buf) >= headerSize {
		size := le.Uint32(m.buf[4:])
		if size < headerSize || size > maxMessage {
			m.broken, m.buf = true, nil
			return
		}
		if uint32(len(m.buf)) < size {
			return
		}
		m.each(message{le.Uint16(m.buf), vfiouser.Command(le.Uint16(m.buf[2:])), le.Uint32(m.buf[8:]), m.buf[headerSize:size]})
		m.buf = append(m.buf[:0], m.buf[size:]...)
	}
}

// access is an access to a region.
type access struct {
	region uint32
	off    uint64
}

// tap makes entries of one session's messages. A command's entry is written when the driver goes on to something else:
// it may read the reply in many pieces.
type tap struct {
	*recorder
	session int

	mu      sync.Mutex // before recorder.mu; driver and device speak at the same time
	reads   map[uint16]access
	send    [pcidev.NESendDataSize]byte
	receive [pcidev.ReplySize]byte
	command *Entry // under way
	heard   bool   // some of its reply was read
}

// maxReads bounds the reads that the device has not answered.
const maxReads = 1 << 10

// asked sees what the driver sends.
func (t *tap) asked(m message) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case m.command == vfiouser.CmdDeviceReset:
		t.add(Reset)
	case m.command == vfiouser.CmdRegionRead && len(m.payload) >= accessSize && len(t.reads) < maxReads:
		t.reads[m.id] = accessOf(m.payload)
	case m.command == vfiouser.CmdRegionWrite && len(m.payload) >= accessSize:
		t.wrote(accessOf(m.payload), m.payload[accessSize:])
	}
}

func accessOf(payload []byte) access {
	return access{off: le.Uint64(payload), region: le.Uint32(payload[8:])}
}

// wrote sees a write to the registers.
func (t *tap) wrote(a access, data []byte) {
	if a.region != pcidev.BAR || a.off > pcidev.BARSize {
		return
	}
	if n := int(pcidev.NESendData) - int(a.off); n < len(data) && n > -len(t.send) {
		copy(t.send[max(-n, 0):], data[max(n, 0):])
	}
	if at := int(pcidev.NECommand) - int(a.off); at >= 0 && at+4 <= len(data) {
		t.begin(pcidev.Command(le.Uint32(data[at:])))
	}
	if at := int(pcidev.NEEnable) - int(a.off); at >= 0 && at < len(data) && data[at] == pcidev.NEEnableOff {
		t.add(Disabled)
	}
}

// begin begins a command.
func (t *tap) begin(c pcidev.Command) {
	t.flush()
	req, err := pcidev.DecodeRequest(c, t.send[:])
	if err != nil {
		return // the device refuses it
	}
	e := entryOf(req, pcidev.Reply{})
	e.At, e.Reply = time.Since(t.began), nil
	t.command, t.heard = &e, false
	clear(t.receive[:])
}

// answered sees what the device sends.
func (t *tap) answered(m message) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m.command != vfiouser.CmdRegionRead || m.flags&typeMask != typeReply {
		return
	}
	a, known := t.reads[m.id]
	delete(t.reads, m.id)
	if !known || m.flags&isError != 0 || len(m.payload) < accessSize || a.region != pcidev.BAR || a.off > pcidev.BARSize {
		return
	}
	data := m.payload[accessSize:]
	n := int(pcidev.NERecvData) - int(a.off)
	if t.command == nil || n >= len(data) || n <= -len(t.receive) {
		return
	}
	copy(t.receive[max(-n, 0):], data[max(n, 0):])
	t.command.At, t.heard = time.Since(t.began), true
}

// tell adds something that is no command.
func (t *tap) tell(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.add(what)
}

func (t *tap) add(what string) {
	t.flush()
	t.write(Entry{At: time.Since(t.began), Session: t.session, What: what})
}

// flush writes the command under way.
func (t *tap) flush() {
	if t.command == nil {
		return
	}
	var reply pcidev.Reply
	if t.heard && reply.Decode(t.receive[:]) == nil {
		t.command.Reply = replyOf(reply)
	}
	t.command.Session = t.session
	t.write(*t.command)
	t.command = nil
}
