package inspect

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"
)

// maxWindow bounds the memory that a compressed ramdisk may ask for, in bytes.
const maxWindow = 128 << 20

// How the streams begin that are read in more than one way.
const (
	magicGzip = "\x1f\x8b"
	magicXZ   = "\xfd7zXZ\x00"
)

// compressions are those that Linux unpacks a ramdisk, and itself, of (lib/decompress.c), by how they begin. LZO has no library.
var compressions = []struct {
	name, magic string
	open        func(r io.Reader) (io.Reader, error)
}{
	{"gzip", magicGzip, func(r io.Reader) (io.Reader, error) {
		z, err := gzip.NewReader(r)
		if err == nil {
			z.Multistream(false) // zeroes may follow
		}
		return z, err
	}},
	{"zstd", "\x28\xb5\x2f\xfd", func(r io.Reader) (io.Reader, error) {
		z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}},
	{"xz", magicXZ, func(r io.Reader) (io.Reader, error) { return xz.NewReader(r) }},
	{"lz4", "\x02\x21\x4c\x18", func(r io.Reader) (io.Reader, error) { return lz4.NewReader(r), nil }},
	{"lzma", "\x5d\x00\x00", func(r io.Reader) (io.Reader, error) { return newLZMA(r) }},
	{"bzip2", "BZh", func(r io.Reader) (io.Reader, error) { return bzip2.NewReader(r), nil }},
	{"lzo", "\x89LZO", func(io.Reader) (io.Reader, error) { return nil, errors.New("nesim cannot unpack this") }},
}

// newLZMA refuses a stream that asks for too much memory: its header has the size of the dictionary.
func newLZMA(r io.Reader) (io.Reader, error) {
	b := bufio.NewReader(r)
	head, err := b.Peek(5)
	if err != nil {
		return nil, err
	}
	if size := uint32(head[1]) | uint32(head[2])<<8 | uint32(head[3])<<16 | uint32(head[4])<<24; size > maxWindow {
		return nil, fmt.Errorf("it asks for a dictionary of %d MiB, %d are the limit", size>>20, maxWindow>>20)
	}
	return lzma.NewReader(b)
}

// decompress returns what r unpacks to, and the name of the compression.
func decompress(r *bufio.Reader) (io.ReadCloser, string, error) {
	first, _ := r.Peek(6)
	for _, c := range compressions {
		if !bytes.HasPrefix(first, []byte(c.magic)) {
			continue
		}
		unpacked, err := c.open(r)
		if err != nil {
			return nil, c.name, fmt.Errorf("%s: %w", c.name, err)
		}
		if closer, ok := unpacked.(io.ReadCloser); ok {
			return closer, c.name, nil
		}
		return io.NopCloser(unpacked), c.name, nil
	}
	return nil, "", fmt.Errorf("neither a cpio archive nor one that is compressed in a known way begins here: %q", first)
}
