package vhostuser

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// Request is the kind of a message. The names and numbers are those of QEMU's
// docs/interop/vhost-user.rst, "Front-end message types".
type Request uint32

const (
	GetFeatures         Request = 1
	SetFeatures         Request = 2
	SetOwner            Request = 3
	ResetOwner          Request = 4
	SetMemTable         Request = 5
	SetVringNum         Request = 8
	SetVringAddr        Request = 9
	SetVringBase        Request = 10
	GetVringBase        Request = 11
	SetVringKick        Request = 12
	SetVringCall        Request = 13
	SetVringErr         Request = 14
	GetProtocolFeatures Request = 15
	SetProtocolFeatures Request = 16
	GetQueueNum         Request = 17
	SetVringEnable      Request = 18
	GetConfig           Request = 24
	SetConfig           Request = 25
)

var requestNames = map[Request]string{
	GetFeatures: "GET_FEATURES", SetFeatures: "SET_FEATURES", SetOwner: "SET_OWNER", ResetOwner: "RESET_OWNER",
	SetMemTable: "SET_MEM_TABLE", SetVringNum: "SET_VRING_NUM", SetVringAddr: "SET_VRING_ADDR",
	SetVringBase: "SET_VRING_BASE", GetVringBase: "GET_VRING_BASE", SetVringKick: "SET_VRING_KICK",
	SetVringCall: "SET_VRING_CALL", SetVringErr: "SET_VRING_ERR", GetProtocolFeatures: "GET_PROTOCOL_FEATURES",
	SetProtocolFeatures: "SET_PROTOCOL_FEATURES", GetQueueNum: "GET_QUEUE_NUM", SetVringEnable: "SET_VRING_ENABLE",
	GetConfig: "GET_CONFIG", SetConfig: "SET_CONFIG",
}

func (r Request) String() string {
	if s, ok := requestNames[r]; ok {
		return s
	}
	return fmt.Sprintf("request %d", uint32(r))
}

// Flags of a message's header ("Header" in vhost-user.rst).
const (
	flagVersion     = 0x1 // bits 0 and 1: the protocol's version
	flagVersionMask = 0x3
	FlagReply       = 0x4 // the back end answers
	FlagNeedReply   = 0x8 // the front end wants an answer: zero for success
)

// Protocol features ("Protocol features" in vhost-user.rst), as bits.
const (
	ProtocolMQ       uint64 = 1 << 0 // VHOST_USER_PROTOCOL_F_MQ
	ProtocolReplyAck uint64 = 1 << 3 // VHOST_USER_PROTOCOL_F_REPLY_ACK
	ProtocolConfig   uint64 = 1 << 9 // VHOST_USER_PROTOCOL_F_CONFIG
)

// Bits of the payload of SET_VRING_KICK, CALL and ERR ("File descriptors in
// ancillary data").
const (
	vringIndexMask = 0xff
	VringNoFD      = 0x100 // VHOST_USER_VRING_NOFD_MASK: no descriptor comes along
)

const (
	headerSize = 12
	// MaxRegions is the number of memory regions SET_MEM_TABLE can carry
	// (VHOST_MEMORY_BASELINE_NREGIONS).
	MaxRegions = 8
	maxPayload = 4096 // far above the largest message served here
)

// Message is one packet of the protocol: a header of three little-endian 32-bit
// words (request, flags, size of the payload), the payload, and the descriptors
// that came along. Whoever holds a Message owns its descriptors.
type Message struct {
	Request Request
	Flags   uint32
	Payload []byte
	FDs     []int
}

// takeFD hands the only descriptor to the caller, who must close it.
func (m *Message) takeFD() (int, error) {
	if len(m.FDs) != 1 {
		return -1, fmt.Errorf("%d descriptors, want 1", len(m.FDs))
	}
	fd := m.FDs[0]
	m.FDs = nil
	return fd, nil
}

// Close closes the descriptors that nobody has taken.
func (m *Message) Close() {
	for _, fd := range m.FDs {
		unix.Close(fd)
	}
	m.FDs = nil
}

// ReadMessage reads the next message. It returns io.EOF when the peer has hung
// up between two messages and io.ErrUnexpectedEOF when it did so inside one.
func ReadMessage(c *net.UnixConn) (*Message, error) {
	m := &Message{}
	err := m.read(c)
	if err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

func (m *Message) read(c *net.UnixConn) error {
	var head [headerSize]byte
	if err := m.fill(c, head[:]); err != nil {
		return err
	}
	m.Request = Request(binary.LittleEndian.Uint32(head[0:]))
	m.Flags = binary.LittleEndian.Uint32(head[4:])
	size := binary.LittleEndian.Uint32(head[8:])
	if v := m.Flags & flagVersionMask; v != flagVersion {
		return fmt.Errorf("%v: protocol version %d, want %d", m.Request, v, flagVersion)
	}
	if size > maxPayload {
		return fmt.Errorf("%v: payload of %d bytes, at most %d are allowed", m.Request, size, maxPayload)
	}
	m.Payload = make([]byte, size)
	err := m.fill(c, m.Payload)
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// fill reads all of p and gathers the descriptors that come with it.
func (m *Message) fill(c *net.UnixConn, p []byte) error {
	oob := make([]byte, unix.CmsgSpace(4*MaxRegions))
	for done := 0; done < len(p); {
		n, oobn, flags, _, err := c.ReadMsgUnix(p[done:], oob)
		if oobn > 0 {
			m.collect(oob[:oobn])
		}
		switch {
		case err != nil && !errors.Is(err, io.EOF):
			return err
		case flags&unix.MSG_CTRUNC != 0 || len(m.FDs) > MaxRegions:
			return fmt.Errorf("more than %d descriptors in one message", MaxRegions)
		case n == 0 && done > 0:
			return io.ErrUnexpectedEOF
		case n == 0:
			return io.EOF
		}
		done += n
	}
	return nil
}

func (m *Message) collect(oob []byte) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return
	}
	for i := range msgs {
		if fds, err := unix.ParseUnixRights(&msgs[i]); err == nil {
			m.FDs = append(m.FDs, fds...)
		}
	}
}

// WriteMessage sends m; its descriptors stay the caller's.
func WriteMessage(c *net.UnixConn, m *Message) error {
	b := make([]byte, headerSize, headerSize+len(m.Payload))
	binary.LittleEndian.PutUint32(b[0:], uint32(m.Request))
	binary.LittleEndian.PutUint32(b[4:], m.Flags|flagVersion)
	binary.LittleEndian.PutUint32(b[8:], uint32(len(m.Payload)))
	b = append(b, m.Payload...)
	var oob []byte
	if len(m.FDs) > 0 {
		oob = unix.UnixRights(m.FDs...)
	}
	n, _, err := c.WriteMsgUnix(b, oob, nil)
	if err == nil && n < len(b) {
		_, err = c.Write(b[n:])
	}
	return err
}
