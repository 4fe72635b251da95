// Package pack makes an EIF of a file tree, a kernel and nesim's init.
//
// The EIF has two ramdisks, as AWS's tools make them. The first, bootstrap, holds /init and the kernel's modules, so
// that PCR1 depends on kernel, command line, modules and init alone. The second, the application's, holds its root
// directory as /rootfs and its arguments and environment as /cmd and /env, so that PCR2 depends on the application
// alone. Both are plain cpio archives, as nitro-cli's are (its linuxkit makes "kernel+initrd-nogz"): an image is as long
// as nitro-cli's, and the kernel copies an archive faster than it unpacks a smaller one. Measured: of a docker save
// archive of 22,330,880 bytes AWS's linuxkit makes a ramdisk of 65,331,200 bytes, and this package one of 65,329,836.
//
// Spec.Check looks for what would keep an image from ever running. Build does not call it.
//
// The same input gives the same file, to the byte: files are sorted and numbered in that order, and carry no times and
// no owners but those they are given. Contents are streamed from the files into the EIF, each once.
//
// Goroutines: Build starts one for each ramdisk and waits for both. Nothing else here has state.
package pack

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nesim/nesim/eif"
	"github.com/nesim/nesim/internal/files"
	"github.com/nesim/nesim/internal/guestwire"
)

// DefaultCmdline is the kernel's command line, chosen by measuring boots:
//
//	console=ttyS0     the console of an enclave in debug mode
//	quiet             saves the kernel's lines: a panic is still told
//	panic=-1 reboot=t a panic ends the enclave at once, by a triple fault, which asks nothing of firmware
//	pci=off, i8042.*  does not look for what no enclave has
const DefaultCmdline = "console=ttyS0 quiet panic=-1 reboot=t pci=off i8042.noaux i8042.nomux i8042.nopnp i8042.dumbkbd random.trust_cpu=on"

// Modules names the kernel modules that init loads at start, where they are not built in: those that find an enclave's
// devices, drive its vsock, drive its NSM, and offer the clock of a KVM host as /dev/ptp0.
var Modules = []string{"virtio_mmio", "vmw_vsock_virtio_transport", "nsm", "ptp_kvm"}

// Spec is what goes into an image.
type Spec struct {
	Application Application
	Kernel      string   // path of a bzImage, or of an ELF vmlinux
	Modules     []string // paths of kernel modules (.ko, .ko.xz, .ko.zst, .ko.gz), with all that they need, in any order
	OnDemand    []string // paths of others that are loaded when the kernel asks for them, with all that they need
	Init        string   // path of another init than nesim's own; modules are in place before it starts
	NSM         string   // path of a kernel module to be stored as /nsm.ko, where AWS's init looks for the NSM's driver
	Cmdline     string   // DefaultCmdline where empty
	Signer      *eif.Signer

	// Metadata is stored as it is, but for what is empty in Build: BuildTool becomes "nesim", OperatingSystem "Linux",
	// and BuildTime what SOURCE_DATE_EPOCH says (https://reproducible-builds.org/specs/source-date-epoch), else 1970.
	// It is not measured.
	Metadata eif.Metadata

	// Progress, where it is not nil, is called from time to time with how many bytes of the application's contents have been
	// packed, by one goroutine.
	Progress func(done int64)

	// Output is the path of the EIF, which is written as package files writes: whole or not at all.
	Output string
}

// Build builds an image and returns its measurements. Its errors are one line.
func Build(ctx context.Context, spec Spec) (eif.Measurements, error) {
	m, err := build(ctx, spec)
	var output *fs.PathError
	if errors.As(err, &output) && output.Path == spec.Output { // which is said once
		err = output.Err
	}
	if err != nil {
		return eif.Measurements{}, fmt.Errorf("build EIF %s: %w", spec.Output, err)
	}
	return m, nil
}

func build(ctx context.Context, spec Spec) (m eif.Measurements, err error) {
	metadata, err := spec.metadata()
	if err != nil {
		return m, err
	}
	bootstrap, err := spec.bootstrap()
	if err != nil {
		return m, fmt.Errorf("bootstrap ramdisk: %w", err)
	}
	app := spec.Application
	if spec.Progress != nil {
		app = app.watched(spec.Progress)
	}
	application, err := app.ramdisk()
	if err != nil {
		return m, fmt.Errorf("application ramdisk: %w", err)
	}
	kernel, err := openRegular(spec.Kernel)
	if err != nil {
		return m, fmt.Errorf("kernel: %w", err)
	}
	defer kernel.Close()
	cmdline := spec.Cmdline
	if cmdline == "" {
		cmdline = DefaultCmdline
	}
	if spec.Output == "" {
		return m, errors.New("no output file is named")
	}
	err = files.WriteTo(spec.Output, 0o666, func(f *os.File) error {
		ramdisks, stop := stream(ctx, bootstrap, application)
		defer stop()
		m, err = eif.Build(ctx, f, eif.BuildSpec{
			Kernel: kernel, Cmdline: cmdline, Ramdisks: ramdisks, Metadata: metadata, Signer: spec.Signer,
		})
		return err
	})
	return m, err
}

// bootstrap returns the bootstrap ramdisk. It has the nodes that the kernel and a Go program want open before init can
// mount /dev.
func (s Spec) bootstrap() (tree, error) {
	entries, err := s.modules()
	if err != nil {
		return nil, err
	}
	inits, err := s.inits(len(entries) > 0)
	if err != nil {
		return nil, err
	}
	entries = append(entries, inits...)
	if s.NSM != "" {
		nsm, err := readModule(s.NSM)
		if err != nil {
			return nil, fmt.Errorf("kernel module %s: %w", s.NSM, err)
		}
		entries = append(entries, file("nsm.ko", 0o755, nsm.data))
	}
	return newTree(append(entries,
		directory("dev"),
		charDevice("dev/console", 0o600, 5, 1), // Documentation/admin-guide/devices.txt
		charDevice("dev/null", 0o666, 1, 3),
	))
}

// modules returns the files of the kernel's modules.
func (s Spec) modules() ([]Entry, error) {
	loaded, err := readModules(s.Modules)
	if err != nil {
		return nil, err
	}
	all, err := readModules(slices.Concat(s.Modules, s.OnDemand))
	if err != nil {
		return nil, err
	}
	onDemand, err := onDemandModules(all, loaded)
	return append(bootModules(loaded), onDemand...), err
}

// inits returns nesim's init; or another one, behind nesim's where there are modules, of which it knows nothing.
func (s Spec) inits(modules bool) (entries []Entry, err error) {
	if s.Init == "" || modules {
		own, err := program("init")
		if err != nil {
			return nil, err
		}
		entries = append(entries, file("init", 0o755, own))
	}
	if s.Init == "" {
		return entries, nil
	}
	other, err := s.otherInit()
	if err != nil {
		return nil, err
	}
	name := "init"
	if modules {
		name = strings.TrimPrefix(guestwire.NextInit, "/")
	}
	return append(entries, file(name, 0o755, other)), nil
}

func (s Spec) otherInit() ([]byte, error) {
	f, err := openRegular(s.Init)
	if err != nil {
		return nil, fmt.Errorf("init: %w", err)
	}
	defer f.Close()
	data, err := readLimited(f)
	if err != nil {
		return nil, fmt.Errorf("init %s: %w", s.Init, err)
	}
	return data, nil
}

// metadata returns the metadata section.
func (s Spec) metadata() ([]byte, error) {
	m := s.Metadata
	if m.Build.BuildTool == "" {
		m.Build.BuildTool = "nesim"
	}
	if m.Build.OperatingSystem == "" {
		m.Build.OperatingSystem = "Linux"
	}
	if m.Build.BuildTime == "" {
		at, err := sourceDate()
		if err != nil {
			return nil, err
		}
		m.Build.BuildTime = eif.FormatBuildTime(at)
	}
	return m.Encode()
}

// sourceDate returns the time that SOURCE_DATE_EPOCH tells, in seconds after 1970.
func sourceDate() (time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		return time.Unix(0, 0), nil
	}
	seconds, err := strconv.ParseUint(text, 10, 38) // to the year 9999 and some more
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH is %q: it should be a number of seconds after 1970", text)
	}
	return time.Unix(int64(seconds), 0), nil
}

// streamBuffer is how much of a ramdisk is gathered before it is handed on, in bytes.
const streamBuffer = 256 << 10

// stream returns readers of archives, each written by a goroutine while it is read. stop ends the goroutines and waits
// for them.
func stream(ctx context.Context, archives ...tree) (readers []io.Reader, stop func()) {
	var writers sync.WaitGroup
	var pipes []*io.PipeReader
	for _, t := range archives {
		r, w := io.Pipe()
		readers, pipes = append(readers, r), append(pipes, r)
		writers.Go(func() {
			b := bufio.NewWriterSize(w, streamBuffer)
			err := t.write(ctx, b)
			if err == nil {
				err = b.Flush()
			}
			w.CloseWithError(err)
		})
	}
	return readers, func() {
		for _, r := range pipes {
			r.Close()
		}
		writers.Wait()
	}
}

// openRegular opens a regular file.
func openRegular(path string) (*os.File, error) {
	if path == "" {
		return nil, errors.New("no file is named")
	}
	info, err := os.Stat(path) // before opening it: a pipe would block
	if err != nil {
		return nil, plain(err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is a %s: it should be a regular file", path, kind(info.Mode()))
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, plain(err)
	}
	return f, nil
}
