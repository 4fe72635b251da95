package stage

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/nesim/nesim/eif"
	"github.com/nesim/nesim/eif/pack"
	"github.com/nesim/nesim/qemu/setup"
)

// ImageSpec is what an image is built of. The zero value is the hello enclave's.
type ImageSpec struct {
	Rootfs    string    // a folder, as pack.FromFolder reads it, in place of hello
	Cmdline   string    // the kernel's; default pack.DefaultCmdline
	Signature Signature // default none
}

// Build builds an image as this engine runs it, in a file without a name, which is the caller's. What a scripted enclave
// never boots is left out: there is no kernel in its image, and no workload but one from a folder.
func (s *Stage) Build(ctx context.Context, spec ImageSpec) (*os.File, error) {
	return build(ctx, s.cfg.Engine, spec)
}

func build(ctx context.Context, engine Engine, spec ImageSpec) (*os.File, error) {
	signer, err := spec.Signature.signer()
	if err != nil {
		return nil, err
	}
	if engine == Scripted && spec.Rootfs == "" {
		return smallImage(ctx, spec.Cmdline, signer)
	}
	dir, err := os.MkdirTemp("", "nesim-image-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	parts := pack.Spec{Cmdline: spec.Cmdline, Signer: signer, Output: filepath.Join(dir, "eif")}
	if spec.Rootfs == "" {
		parts.Application, err = pack.Hello()
	} else {
		parts.Application, err = pack.FromFolder(ctx, spec.Rootfs)
	}
	if err != nil {
		return nil, err
	}
	if err := kernel(&parts, engine, dir); err != nil {
		return nil, err
	}
	if _, err := pack.Build(ctx, parts); err != nil {
		return nil, err
	}
	return os.Open(parts.Output)
}

const noKernel = "no kernel"

// kernel sets a kernel and its modules; dir is for one that is never booted.
func kernel(parts *pack.Spec, engine Engine, dir string) error {
	if engine == Scripted {
		parts.Kernel = filepath.Join(dir, "kernel")
		return os.WriteFile(parts.Kernel, []byte(noKernel), 0o600)
	}
	k, err := setup.FindKernel()
	if err != nil {
		return err
	}
	parts.Kernel = k.Image
	if parts.Modules, err = k.LoadOrder(pack.Modules...); err != nil {
		return err
	}
	parts.OnDemand, err = k.LoadOrder(setup.FeatureModules()...)
	return err
}

// smallImage is an image of which nothing is ever booted.
func smallImage(ctx context.Context, cmdline string, signer *eif.Signer) (*os.File, error) {
	f, err := os.CreateTemp("", "nesim-image-")
	if err != nil {
		return nil, err
	}
	if cmdline == "" {
		cmdline = pack.DefaultCmdline
	}
	_, err = eif.Build(ctx, f, eif.BuildSpec{
		Kernel: strings.NewReader(noKernel), Cmdline: cmdline, Ramdisks: []io.Reader{strings.NewReader("no ramdisk")}, Signer: signer,
	})
	if err = errors.Join(os.Remove(f.Name()), err); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// hello is the image of the hello enclave for each engine, made once.
var hello = map[Engine]func(context.Context) (*os.File, error){
	Scripted: once(func(ctx context.Context) (*os.File, error) { return build(ctx, Scripted, ImageSpec{}) }),
	QEMU:     once(func(ctx context.Context) (*os.File, error) { return build(ctx, QEMU, ImageSpec{}) }),
}

// once makes something at the first call that succeeds.
func once(make func(context.Context) (*os.File, error)) func(context.Context) (*os.File, error) {
	var mu sync.Mutex
	var made *os.File
	return func(ctx context.Context) (_ *os.File, err error) {
		mu.Lock()
		defer mu.Unlock()
		if made == nil {
			made, err = make(ctx)
		}
		return made, err
	}
}

// Hello returns the hello enclave's image, as this engine runs it, in a file at offset 0. It is shared: do not change it.
func (s *Stage) Hello(ctx context.Context) (*os.File, int64, error) {
	f, err := hello[s.cfg.Engine](ctx)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	return f, info.Size(), nil
}
