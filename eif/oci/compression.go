package oci

import (
	"bytes"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// maxWindow bounds the memory that a zstd stream may ask for, in bytes.
const maxWindow = 128 << 20

// decompress returns what data unpacks to, by its first bytes, or nil where it is not compressed.
func decompress(data *io.SectionReader) (io.ReadCloser, error) {
	first := make([]byte, 4)
	n, err := data.ReadAt(first, 0)
	if err != nil && err != io.EOF {
		return nil, err
	}
	return decompressor(first[:n], data)
}

// decompressor returns a reader of what r unpacks to, given r's first bytes, or nil where it is not compressed.
func decompressor(first []byte, r io.Reader) (io.ReadCloser, error) {
	switch {
	case bytes.HasPrefix(first, []byte("\x1f\x8b")):
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, fmt.Errorf("gzip: %w", err)
		}
		return z, nil
	case bytes.HasPrefix(first, []byte("\x28\xb5\x2f\xfd")):
		z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, fmt.Errorf("zstd: %w", err)
		}
		return z.IOReadCloser(), nil
	}
	return nil, nil
}
