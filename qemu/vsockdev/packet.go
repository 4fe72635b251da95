package vsockdev

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/nesim/nesim/qemu/vhostuser"
)

// Constants of include/uapi/linux/virtio_vsock.h; virtio 1.2, section 5.10.6.
const (
	headerSize = 44 // struct virtio_vsock_hdr

	typeStream = 1 // VIRTIO_VSOCK_TYPE_STREAM

	opRequest       = 1 // VIRTIO_VSOCK_OP_REQUEST
	opResponse      = 2 // VIRTIO_VSOCK_OP_RESPONSE
	opRst           = 3 // VIRTIO_VSOCK_OP_RST
	opShutdown      = 4 // VIRTIO_VSOCK_OP_SHUTDOWN
	opRW            = 5 // VIRTIO_VSOCK_OP_RW
	opCreditUpdate  = 6 // VIRTIO_VSOCK_OP_CREDIT_UPDATE
	opCreditRequest = 7 // VIRTIO_VSOCK_OP_CREDIT_REQUEST

	shutdownRcv  = 1 // VIRTIO_VSOCK_SHUTDOWN_RCV: the sender will receive no more
	shutdownSend = 2 // VIRTIO_VSOCK_SHUTDOWN_SEND: the sender will send no more
	shutdownBoth = shutdownRcv | shutdownSend
)

// maxPayload is the longest payload of a packet, in bytes
// (VIRTIO_VSOCK_MAX_PKT_BUF_SIZE of include/linux/virtio_vsock.h).
const maxPayload = 64 << 10

// header is struct virtio_vsock_hdr, little-endian in memory.
type header struct {
	srcCID, dstCID   uint64
	srcPort, dstPort uint32
	len              uint32
	typ, op          uint16
	flags            uint32
	bufAlloc         uint32 // the sender's receive buffer, in bytes
	fwdCnt           uint32 // how many bytes it has taken out of that
}

func decodeHeader(b *[headerSize]byte) header {
	le := binary.LittleEndian
	return header{
		srcCID: le.Uint64(b[0:]), dstCID: le.Uint64(b[8:]),
		srcPort: le.Uint32(b[16:]), dstPort: le.Uint32(b[20:]),
		len: le.Uint32(b[24:]), typ: le.Uint16(b[28:]), op: le.Uint16(b[30:]), flags: le.Uint32(b[32:]),
		bufAlloc: le.Uint32(b[36:]), fwdCnt: le.Uint32(b[40:]),
	}
}

func (h *header) encode(b *[headerSize]byte) {
	le := binary.LittleEndian
	le.PutUint64(b[0:], h.srcCID)
	le.PutUint64(b[8:], h.dstCID)
	le.PutUint32(b[16:], h.srcPort)
	le.PutUint32(b[20:], h.dstPort)
	le.PutUint32(b[24:], h.len)
	le.PutUint16(b[28:], h.typ)
	le.PutUint16(b[30:], h.op)
	le.PutUint32(b[32:], h.flags)
	le.PutUint32(b[36:], h.bufAlloc)
	le.PutUint32(b[40:], h.fwdCnt)
}

// reset is the RST that answers h; its type is echoed, known or not.
func (h *header) reset() header {
	return header{
		srcCID: h.dstCID, srcPort: h.dstPort, dstCID: h.srcCID, dstPort: h.srcPort, typ: h.typ, op: opRst,
	}
}

// readPacket takes a packet of the guest's: it returns the header and leaves c at
// the payload, of which header.len bytes are there for certain.
func readPacket(c *vhostuser.Chain) (header, error) {
	var b [headerSize]byte
	if c.WritableLen() > 0 {
		return header{}, errors.New("packet comes in a buffer to be written")
	}
	if n := c.Read(b[:]); n < headerSize {
		return header{}, fmt.Errorf("packet of %d bytes is shorter than a header", n)
	}
	h := decodeHeader(&b)
	if h.len > maxPayload || int(h.len) > c.ReadableLen() {
		return header{}, fmt.Errorf("payload of %d bytes in a buffer of %d, at most %d are allowed",
			h.len, c.ReadableLen(), maxPayload)
	}
	return h, nil
}

// writePacket puts a packet with a payload into one of the guest's buffers.
func writePacket(q *vhostuser.Queue, c *vhostuser.Chain, h *header, payload []byte) {
	var b [headerSize]byte
	h.encode(&b)
	n := c.Write(b[:])
	n += c.Write(payload)
	q.Push(c, n)
}

// payloadRoom returns how many bytes of payload fit into a buffer of the guest's.
func payloadRoom(c *vhostuser.Chain) (int, error) {
	room := c.WritableLen() - headerSize
	if room <= 0 || c.ReadableLen() > 0 {
		return 0, fmt.Errorf("receive buffer with %d bytes to write and %d to read, want more than %d and 0",
			c.WritableLen(), c.ReadableLen(), headerSize)
	}
	return room, nil
}
