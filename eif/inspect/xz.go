package inspect

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// The XZ file format, version 1.2.1: sizes in bytes, and what this reader must know of a block's header (section 3.1).
const (
	xzStreamHeader  = 12
	xzFilters       = 0x03 // of the block's flags: how many filters there are, less one
	xzHasPackedSize = 0x40
	xzHasSize       = 0x80
	xzFilterLZMA2   = 0x21
)

// newUnfilteredXZ unpacks the first block of an xz stream, and does not undo the filters that were applied before the
// compression. A kernel's stream has one block, and the filter for x86, which package xz cannot undo (scripts/xz_wrap.sh).
// That filter changes the operands of CALL and JMP only: texts of seven-bit characters come out right.
func newUnfilteredXZ(r *bufio.Reader) (io.Reader, error) {
	if _, err := r.Discard(xzStreamHeader); err != nil {
		return nil, fmt.Errorf("xz: %w", noEOF(err))
	}
	first, err := r.Peek(1)
	if err != nil {
		return nil, fmt.Errorf("xz: %w", noEOF(err))
	}
	if first[0] == 0 {
		return nil, errors.New("xz: the stream has no block")
	}
	header := make([]byte, (int(first[0])+1)*4) // 1024 bytes at most
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, fmt.Errorf("xz: %w", noEOF(err))
	}
	window, err := xzWindow(header[1:])
	if err != nil {
		return nil, fmt.Errorf("xz: %w", err)
	}
	return lzma.Reader2Config{DictCap: window}.NewReader2(r)
}

// xzWindow reads a block's header, from its flags on, and returns the size of the window that its LZMA2 stream needs, in bytes.
func xzWindow(header []byte) (int, error) {
	errBad := errors.New("bad block header")
	flags, rest := header[0], header[1:]
	number := func() (n uint64) {
		n, size := binary.Uvarint(rest)
		if size <= 0 {
			rest = nil
			return 0
		}
		rest = rest[size:]
		return n
	}
	for _, bit := range []byte{xzHasPackedSize, xzHasSize} {
		if flags&bit != 0 {
			number()
		}
	}
	for range flags&xzFilters + 1 {
		id, size := number(), number()
		if size > uint64(len(rest)) {
			return 0, errBad
		}
		properties := rest[:size]
		rest = rest[size:]
		if id != xzFilterLZMA2 {
			continue
		}
		if len(properties) != 1 || properties[0] > 40 {
			return 0, errBad
		}
		bits := properties[0]
		window := uint64(2|bits&1) << (bits/2 + 11)
		if window > maxWindow {
			return 0, fmt.Errorf("it asks for a dictionary of %d MiB, %d are the limit", window>>20, maxWindow>>20)
		}
		return int(window), nil
	}
	return 0, errors.New("the block is not of LZMA2")
}

// noEOF makes an end that comes too early one that cannot be taken for the right one.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
