package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/dustin/go-humanize"
)

// spool is a file without a name, made when it is first needed, that unpacked layers are gathered in.
type spool struct {
	dir   string
	limit int64 // bytes that it may have
	file  *os.File
	end   int64
}

// copyBuffer is how much is copied at once, in bytes.
const copyBuffer = 256 << 10

// add copies r to the spool's end and returns a reader of it. report is told of each piece.
func (s *spool) add(ctx context.Context, r io.Reader, report func(n int)) (*io.SectionReader, error) {
	if err := s.open(); err != nil {
		return nil, err
	}
	start := s.end
	buffer := make([]byte, copyBuffer)
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n, err := r.Read(buffer)
		if s.end+int64(n) > s.limit {
			return nil, fmt.Errorf("unpacked its layers are longer than the limit of %s", humanize.IBytes(uint64(s.limit)))
		}
		if err := s.write(buffer[:n]); err != nil {
			return nil, fmt.Errorf("unpack (TMPDIR names another folder): %w", err)
		}
		report(n)
		if errors.Is(err, io.EOF) {
			return io.NewSectionReader(s.file, start, s.end-start), nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// write appends. Zeroes become a hole, so that a sparse file or a bomb of them takes no room on the disk.
func (s *spool) write(p []byte) (err error) {
	end := s.end + int64(len(p))
	if len(bytes.TrimLeft(p, "\x00")) == 0 {
		err = s.file.Truncate(end)
	} else {
		_, err = s.file.WriteAt(p, s.end)
	}
	if err == nil {
		s.end = end
	}
	return err
}

func (s *spool) open() (err error) {
	if s.file != nil {
		return nil
	}
	if s.dir == "" {
		s.dir = os.Getenv("TMPDIR")
	}
	if s.dir == "" {
		s.dir = "/var/tmp"
		if _, err := os.Stat(s.dir); err != nil {
			s.dir = os.TempDir()
		}
	}
	if s.file, err = os.CreateTemp(s.dir, "nesim-image-"); err != nil {
		return fmt.Errorf("make a file to unpack into (TMPDIR names another folder): %w", err)
	}
	return os.Remove(s.file.Name())
}

// Close frees the file.
func (s *spool) Close() error {
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file = nil
	return err
}
