package inspect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/nesim/nesim/eif"
	"github.com/nesim/nesim/internal/files"
)

// Extract writes an image's sections into files in a folder, which it makes: kernel, cmdline, metadata.json,
// ramdisk-0.cpio and so on, and signature.cbor with its certificate.pem. It replaces no file that is there. It returns
// the files' names, in the sections' order.
func Extract(ctx context.Context, image *eif.Image, dir string) (names []string, err error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	ramdisks := 0
	for _, s := range image.Sections() {
		name := ""
		switch s.Kind {
		case eif.SectionKernel:
			name = "kernel"
		case eif.SectionCmdline:
			name = "cmdline"
		case eif.SectionMetadata:
			name = "metadata.json"
		case eif.SectionSignature:
			name = "signature.cbor"
		case eif.SectionRamdisk:
			name = fmt.Sprintf("ramdisk-%d.cpio", ramdisks)
			ramdisks++
		}
		if err := writeNew(ctx, filepath.Join(dir, name), image.Data(s)); err != nil {
			return names, fmt.Errorf("%s: %w", dir, err)
		}
		names = append(names, name)
	}
	if s, err := image.Signature(); err == nil && s != nil {
		if err := writeNew(ctx, filepath.Join(dir, "certificate.pem"), bytes.NewReader(s.CertificatePEM)); err != nil {
			return names, fmt.Errorf("%s: %w", dir, err)
		}
		names = append(names, "certificate.pem")
	}
	return names, nil
}

// writeNew writes a file that must not exist yet, whole or not at all.
func writeNew(ctx context.Context, path string, data io.Reader) error {
	err := files.WriteNew(path, 0o666, func(f *os.File) error {
		_, err := io.Copy(f, &stoppable{ctx, data})
		return err
	})
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("there is a file %s already: choose an empty folder", filepath.Base(path))
	}
	return err
}

// stoppable is a reader that ends with its context.
type stoppable struct {
	ctx context.Context
	io.Reader
}

func (s *stoppable) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.Reader.Read(p)
}
