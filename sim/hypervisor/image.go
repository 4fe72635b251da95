package hypervisor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/nesim/nesim/eif"
	"golang.org/x/sys/unix"
)

const (
	// moveChunk is how much of the image is there twice at most while it is moved, in bytes. It is the size of the
	// smallest huge page, so that each chunk's pages can be given back.
	moveChunk = 2 << 20
	// copyChunk is how much is copied at a time: it stays in the processor's cache.
	copyChunk = 256 << 10
	// maxImage bounds the size that an image may claim to have, in bytes.
	maxImage = 1 << 40
)

// image is an EIF that was moved out of donated memory into private files: the kernel in one, the ramdisks one after
// the other in another, everything else in a third. As an io.ReaderAt it is the EIF again. Nobody but the VMM gets at
// the files, and nobody can change their size.
type image struct {
	*eif.Image // of this image's own bytes
	from       *donation
	size       int64
	parts      []part // in the EIF's order, without gaps
	kernel     *os.File
	initrd     *os.File // nil if there is no ramdisk
	rest       *os.File
}

// part is a piece of the EIF and where it lies.
type part struct {
	off, size int64 // in the EIF
	file      *os.File
	at        int64 // in the file
}

// takeImage moves the EIF out of the donated memory, checks and measures it. After an error the EIF is back. The error
// wraps ErrUnbootable if it is the image's fault.
func takeImage(ctx context.Context, from *donation) (*image, eif.Measurements, error) {
	plan, err := findImage(from)
	if err != nil {
		return nil, eif.Measurements{}, err
	}
	img, err := newImage(from, plan)
	if err != nil {
		return nil, eif.Measurements{}, &refusal{unix.ENOMEM, "make room for the enclave image", err}
	}
	moved, err := img.move(ctx)
	if err == nil {
		var m eif.Measurements
		if m, err = img.check(ctx, plan); err == nil {
			return img, m, nil
		}
	}
	return nil, eif.Measurements{}, img.refused(err, moved)
}

// findImage reads the headers of the EIF in donated memory. The parent may still change them: check looks again.
func findImage(from *donation) (*eif.Image, error) {
	room := from.size - imageOffset
	r := &window{donation: from, size: room}
	found, err := eif.Open(r, maxImage)
	switch {
	case r.missed || err == nil && found.Size() > room:
		need := "more"
		if err == nil {
			need = fmt.Sprintf("%d MiB at least", (found.Size()+imageOffset+1<<20-1)>>20)
		}
		return nil, &unbootable{text: fmt.Sprintf("%d MiB of enclave memory are too little for the image, which needs %s, "+
			"as it begins at %d MiB: give the enclave more memory", from.size>>20, need, imageOffset>>20)}
	case err != nil:
		return nil, bad(err)
	case found.Header().Flags&eif.FlagARM64 != 0:
		return nil, &unbootable{text: "the enclave image is for arm64, enclaves here are x86_64: build it for x86_64"}
	}
	return found, nil
}

// window shows the donated memory from where the image begins.
type window struct {
	*donation
	size   int64
	missed bool // somebody wanted to read past the end
}

func (w *window) ReadAt(p []byte, off int64) (int, error) {
	if off > w.size-int64(len(p)) {
		w.missed = true
		return 0, io.ErrUnexpectedEOF
	}
	return w.donation.ReadAt(p, imageOffset+off)
}

// newImage lays out the files for an EIF with such headers. They take memory only as they are filled.
func newImage(from *donation, plan *eif.Image) (_ *image, err error) {
	img := &image{from: from, size: plan.Size()}
	var kernel, initrd, rest, end int64
	place := func(size int64, at *int64, file **os.File, name string) {
		if size == 0 || err != nil {
			return
		}
		if *file == nil {
			if *file, err = memfd(name); err != nil {
				return
			}
		}
		img.parts = append(img.parts, part{off: end, size: size, file: *file, at: *at})
		*at += size
		end += size
	}
	for _, s := range plan.Sections() {
		place(s.Offset-end, &rest, &img.rest, "nesim-eif")
		switch s.Kind {
		case eif.SectionKernel:
			place(s.Size, &kernel, &img.kernel, "nesim-kernel")
		case eif.SectionRamdisk:
			place(s.Size, &initrd, &img.initrd, "nesim-initrd")
		default:
			place(s.Size, &rest, &img.rest, "nesim-eif")
		}
	}
	if err = cmp.Or(err, seal(img.kernel, kernel), seal(img.initrd, initrd), seal(img.rest, rest)); err != nil {
		img.close()
		return nil, err
	}
	return img, nil
}

// move moves the EIF into the files, and zeroes it where it was. It returns how much was moved, also on an error.
func (img *image) move(ctx context.Context) (int64, error) {
	buf := make([]byte, min(copyChunk, img.size))
	for off := int64(0); off < img.size; off += moveChunk {
		if err := ctx.Err(); err != nil {
			return off, err
		}
		n := min(moveChunk, img.size-off)
		for at := off; at < off+n; at += copyChunk {
			p := buf[:min(copyChunk, off+n-at)]
			if _, err := img.from.ReadAt(p, imageOffset+at); err != nil {
				return off, fmt.Errorf("read the enclave image out of the parent's memory: %w", err)
			}
			if err := img.writeAt(p, at); err != nil {
				return off, &refusal{unix.ENOMEM, "take over the enclave image", err}
			}
		}
		if err := img.from.zero(imageOffset+off, n); err != nil {
			return off + n, fmt.Errorf("take the enclave image from the parent's memory: %w", err)
		}
	}
	return img.size, nil
}

// check opens and measures what was moved.
func (img *image) check(ctx context.Context, plan *eif.Image) (eif.Measurements, error) {
	var err error
	if img.Image, err = eif.Open(img, img.size); err != nil {
		return eif.Measurements{}, bad(err)
	}
	for i, s := range plan.Sections() {
		if got := img.Sections(); len(got) <= i || got[i] != s {
			return eif.Measurements{}, &unbootable{text: "the parent changed the enclave image while it was taken"}
		}
	}
	m, err := img.Measure(ctx)
	if err != nil {
		return eif.Measurements{}, bad(err)
	}
	return m, nil
}

// refused gives the first n bytes back because of err, which it returns.
func (img *image) refused(err error, n int64) error {
	if lost := img.giveBack(n); lost != nil {
		return fmt.Errorf("%w (the image is lost: %v)", err, lost)
	}
	return err
}

// giveBack moves the first n bytes back to where they were and closes the image.
func (img *image) giveBack(n int64) error {
	defer img.close()
	buf := make([]byte, min(copyChunk, n))
	for off := int64(0); off < n; off += copyChunk {
		p := buf[:min(copyChunk, n-off)]
		if _, err := img.ReadAt(p, off); err != nil {
			return err
		}
		if err := img.from.writeAt(p, imageOffset+off); err != nil {
			return err
		}
		img.punch(off, int64(len(p)))
	}
	return nil
}

// close gives back the image's memory, also if somebody else still holds its files.
func (img *image) close() {
	img.punch(0, img.size)
	for _, f := range []*os.File{img.kernel, img.initrd, img.rest} {
		if f != nil {
			f.Close()
		}
	}
}

// each calls f for the parts of [off, off+n), in order.
func (img *image) each(off, n int64, f func(file *os.File, at, done, n int64) error) error {
	var done int64
	for _, p := range img.parts {
		if n == 0 || off >= p.off+p.size {
			continue
		}
		m := min(n, p.off+p.size-off)
		if err := f(p.file, p.at+off-p.off, done, m); err != nil {
			return err
		}
		off, done, n = off+m, done+m, n-m
	}
	return nil
}

// ReadAt is io.ReaderAt's, over the EIF.
func (img *image) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, unix.EINVAL
	}
	err = img.each(off, int64(len(p)), func(f *os.File, at, done, m int64) error {
		k, err := f.ReadAt(p[done:done+m], at)
		n += k
		return err
	})
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

func (img *image) writeAt(p []byte, off int64) error {
	return img.each(off, int64(len(p)), func(f *os.File, at, done, m int64) error {
		_, err := f.WriteAt(p[done:done+m], at)
		return err
	})
}

// punch frees the memory of [off, off+n). Memfds can do that; if one cannot, the memory is free when it is closed.
func (img *image) punch(off, n int64) {
	_ = img.each(off, n, func(f *os.File, at, _, m int64) error {
		return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, m)
	})
}

// bad tells an image's fault from a failure to read it, in an error of package eif.
func bad(err error) error {
	if errors.Is(err, eif.ErrSignature) || errors.Is(err, eif.ErrCRC) || errors.Is(err, eif.ErrFormat) {
		return &unbootable{"enclave image refused", err}
	}
	errno := unix.EIO
	errors.As(err, &errno)
	return &refusal{errno, "read the enclave image", err}
}

func memfd(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// seal gives a memfd its size for good.
func seal(f *os.File, size int64) error {
	if f == nil {
		return nil
	}
	if err := f.Truncate(size); err != nil {
		return err
	}
	_, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	return os.NewSyscallError("fcntl F_ADD_SEALS", err)
}
