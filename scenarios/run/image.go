package run

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/eif"
	"github.com/nesim/nesim/scenarios"
	"github.com/nesim/nesim/scenarios/stage"
	"github.com/nesim/nesim/scenarios/trace"
	"github.com/nesim/nesim/sim/nedriver"
)

func (p *player) build(ctx context.Context, at branch, b *scenarios.Build) error {
	spec := stage.ImageSpec{Cmdline: b.Cmdline, Signature: stage.Signature(b.Sign)}
	if b.Rootfs != "" {
		spec.Rootfs = p.path(b.Rootfs)
	}
	f, err := p.stage.Build(ctx, spec)
	if err != nil {
		return fmt.Errorf("build image %s: %w", b.As, err)
	}
	p.mu.Lock()
	before := p.images[b.As]
	p.images[b.As] = f
	p.mu.Unlock()
	if before != nil {
		before.Close()
	}
	p.note(at, "parent", trace.Note, "image "+b.As+" is built")
	return nil
}

// load copies an image to where the driver says that images begin.
func (p *player) load(ctx context.Context, e *enclave, memory *nedriver.Mapping, a *scenarios.AddMemory) error {
	image, size, err := p.image(ctx, a.Image)
	if err != nil {
		return fmt.Errorf("image %s: %w", a.Image, err)
	}
	defer image.Close()
	at := io.NewOffsetWriter(memory, nedriver.EIFLoadOffset)
	if _, err := io.Copy(at, io.NewSectionReader(image, 0, size)); err != nil {
		return fmt.Errorf("load the image: %w", err)
	}
	e.image = uint64(size)
	if a.Corrupt == nil {
		return nil
	}
	var old [1]byte
	off := int64(nedriver.EIFLoadOffset) + int64(*a.Corrupt)
	if _, err := memory.ReadAt(old[:], off); err != nil {
		return fmt.Errorf("corrupt the image at %d: %w", *a.Corrupt, err)
	}
	_, err = memory.WriteAt([]byte{old[0] ^ 0xff}, off)
	return err
}

// image opens an image: the hello enclave's, one that was built, or a file from the scenario's folder.
func (p *player) image(ctx context.Context, name string) (f *os.File, size int64, err error) {
	p.mu.Lock()
	shared := p.images[name]
	p.mu.Unlock()
	path := p.path(name)
	if name == "hello" {
		if shared, _, err = p.stage.Hello(ctx); err != nil {
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

// path is where a file of the scenario's is.
func (p *player) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(p.file), name)
}

// checkDates refuses an image whose certificate is out of its dates, as run-enclave does before it starts one; all else
// that may be wrong with it is for the hypervisor to find.
func (p *player) checkDates(ctx context.Context, name string) error {
	if name == "none" {
		return nil
	}
	f, size, err := p.image(ctx, name)
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
