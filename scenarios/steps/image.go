package steps

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/eif"
)

// Names of images that no step makes.
const (
	helloImage = "hello" // the hello enclave's
	noImage    = "none"
)

// image opens an image: the hello enclave's, one that a step has built, or a file from the scenario's folder.
func (w *World) image(ctx context.Context, name string) (f *os.File, size int64, err error) {
	w.mu.Lock()
	shared := w.images[name]
	w.mu.Unlock()
	path := w.path(name)
	if name == helloImage {
		if shared, _, err = w.Stage.Hello(ctx); err != nil {
			return nil, 0, err
		}
	}
	if shared != nil {
		path = fmt.Sprintf("/proc/self/fd/%d", shared.Fd())
	}
	if f, err = os.Open(path); err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a file")
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

// path is the path of a file that the scenario names.
func (w *World) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(w.file), name)
}

// checkDates refuses an image whose certificate has expired or is not valid yet, as run-enclave does before it starts one.
// Everything else that may be wrong with the image is for the hypervisor to find.
func (w *World) checkDates(ctx context.Context, name string) error {
	if name == noImage {
		return nil
	}
	f, size, err := w.image(ctx, name)
	if err != nil {
		return err
	}
	defer f.Close()
	image, err := eif.Open(f, size)
	if err != nil {
		return nil
	}
	signature, err := image.Signature()
	if err != nil || signature == nil {
		return nil
	}
	if err := signature.CheckValidity(time.Now()); err != nil {
		return fmt.Errorf("%w: %w", unix.EKEYEXPIRED, err)
	}
	return nil
}
