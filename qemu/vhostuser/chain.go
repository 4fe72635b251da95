package vhostuser

import "errors"

// maxChain bounds the descriptors of one chain, those of an indirect table
// included (IOV_MAX, as in QEMU and Linux).
const maxChain = 1024

// Errors of a descriptor chain. They stop the queue.
var (
	errChainLoop       = errors.New("descriptor chain has a loop or is too long")
	errChainIndex      = errors.New("descriptor index is outside its table")
	errChainOrder      = errors.New("descriptor for reading follows one for writing")
	errChainMemory     = errors.New("descriptor points outside guest memory")
	errIndirectNested  = errors.New("indirect descriptor inside an indirect table")
	errIndirectNext    = errors.New("indirect descriptor is not the last of its chain")
	errIndirectSize    = errors.New("indirect table is empty, too long or no whole number of descriptors")
	errIndirectFeature = errors.New("indirect descriptor without VIRTIO_F_INDIRECT_DESC")
)

// Chain is one buffer the driver has made available: bytes for the device to
// read, followed by room for it to write. It points into guest memory and is
// valid only until Process returns. The zero Chain is ready for Queue.Next; use
// one again and again to save allocations.
type Chain struct {
	head     uint16
	count    int // descriptors
	readable buffers
	writable buffers
}

// ReadableLen returns how many bytes are left to read.
func (c *Chain) ReadableLen() int { return c.readable.left }

// WritableLen returns how much room is left to write.
func (c *Chain) WritableLen() int { return c.writable.left }

// Read copies the next bytes to read into p and returns how many those were.
func (c *Chain) Read(p []byte) int {
	n := 0
	for n < len(p) {
		b := c.readable.next(len(p) - n)
		if len(b) == 0 {
			break
		}
		n += copy(p[n:], b)
	}
	return n
}

// Write copies p, or what fits of it, and returns how many bytes those were.
func (c *Chain) Write(p []byte) int {
	n := 0
	for n < len(p) {
		b := c.writable.next(len(p) - n)
		if len(b) == 0 {
			break
		}
		n += copy(b, p[n:])
	}
	return n
}

func (c *Chain) reset(head uint16) {
	c.head, c.count = head, 0
	c.readable.reset()
	c.writable.reset()
}

// add appends the memory that one descriptor describes. It may cross from one
// region into the next.
func (c *Chain) add(m *memory, d descriptor) error {
	to := &c.readable
	if d.flags&descWrite != 0 {
		to = &c.writable
	} else if c.writable.left > 0 {
		return errChainOrder
	}
	for addr, n := d.addr, uint64(d.len); n > 0; {
		b := m.guestRange(addr, n)
		if b == nil {
			return errChainMemory
		}
		to.add(b)
		addr, n = addr+uint64(len(b)), n-uint64(len(b))
	}
	return nil
}

// buffers is a list of pieces of memory that is consumed from its front.
type buffers struct {
	parts [][]byte
	at    int // the first part that is not used up
	left  int // bytes
}

func (b *buffers) reset() {
	b.parts, b.at, b.left = b.parts[:0], 0, 0
}

func (b *buffers) add(p []byte) {
	b.parts = append(b.parts, p)
	b.left += len(p)
}

// next takes up to n bytes from the front: nothing at the end.
func (b *buffers) next(n int) []byte {
	if b.at == len(b.parts) || n <= 0 {
		return nil
	}
	p := b.parts[b.at]
	if len(p) <= n {
		b.at++
		b.left -= len(p)
		return p
	}
	b.parts[b.at] = p[n:]
	b.left -= n
	return p[:n]
}
