package vsockdev

import (
	"math/bits"

	"github.com/nesim/nesim/qemu/vhostuser"
)

// fifo is a queue of bytes that grows as needed. Its owner bounds it.
type fifo struct {
	buf   []byte // its length is a power of two
	start int
	len   int
}

const minFifo = 4 << 10

// fill appends n bytes from c, which has them.
func (f *fifo) fill(c *vhostuser.Chain, n int) {
	f.reserve(n)
	for n > 0 {
		at := (f.start + f.len) & (len(f.buf) - 1)
		got := c.Read(f.buf[at:min(at+n, len(f.buf))])
		f.len += got
		n -= got
	}
}

// read moves the oldest bytes into p.
func (f *fifo) read(p []byte) int {
	n := 0
	for n < len(p) && f.len > 0 {
		m := copy(p[n:], f.buf[f.start:min(f.start+f.len, len(f.buf))])
		f.start = (f.start + m) & (len(f.buf) - 1)
		f.len -= m
		n += m
	}
	if f.len == 0 {
		f.start = 0
	}
	return n
}

// reserve makes room for n more bytes.
func (f *fifo) reserve(n int) {
	if f.len+n <= len(f.buf) {
		return
	}
	size := max(minFifo, 1<<bits.Len(uint(f.len+n-1)))
	buf := make([]byte, size)
	held := f.len
	f.read(buf[:held])
	f.buf, f.start, f.len = buf, 0, held
}
