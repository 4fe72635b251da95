package instance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/eif"
	"github.com/nesim/nesim/qemu"
	"github.com/nesim/nesim/sim/errcode"
	"github.com/nesim/nesim/sim/hypervisor"
	"github.com/nesim/nesim/sim/nedriver"
	"github.com/nesim/nesim/sim/parent"
)

const (
	mib      = 1 << 20
	hugePage = nedriver.PageSize2M

	lastLines = 3 // of the console, quoted when an enclave does not come up
)

// RunEnclave runs an enclave as nitro-cli does and returns when its heartbeat has been answered. progress is called
// with a line for people at each step. On an error, and when ctx ends before the heartbeat, nothing is left.
func (i *Instance) RunEnclave(ctx context.Context, spec RunSpec, progress func(string)) (RunInfo, error) {
	if err := spec.Check(); err != nil {
		return RunInfo{}, err
	}
	image, err := i.openImage(spec)
	if err != nil {
		return RunInfo{}, err
	}
	defer image.Close()
	e, err := i.create(&spec)
	if err != nil {
		return RunInfo{}, err
	}
	launched := false
	defer func() {
		if !launched {
			e.terminate()
		}
	}()
	e.lines.hand(progress)
	defer e.lines.hand(nil)
	info, err := e.launch(ctx, spec, image, e.lines.say)
	if err != nil {
		if e.terminated() {
			err = errcode.New(errcode.EnclaveBootFailure, "the enclave did not boot: it was terminated")
		}
		return RunInfo{}, err
	}
	launched = true
	return info, nil
}

// image is an EIF file to be run.
type image struct {
	*os.File
	size     int64
	identity eif.Identity
}

// openImage opens an EIF and finds out, before anything is set up, whether it is one that could run.
func (i *Instance) openImage(spec RunSpec) (*image, error) {
	// Without O_NONBLOCK the opening of a FIFO would wait for a writer.
	f, err := os.OpenFile(spec.EIFPath, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, errcode.Wrap(errcode.FileOperationFailure, err)
	}
	list, pool := i.driver.CPUs()
	if err := checkCPUs(&spec, list, pool, i.cfg.ThreadsPerCore); err != nil {
		f.Close()
		return nil, err
	}
	img, err := checkImage(f, spec)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", spec.EIFPath, err)
	}
	return img, nil
}

func checkImage(f *os.File, spec RunSpec) (*image, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, errcode.Wrap(errcode.FileOperationFailure, err)
	}
	if !info.Mode().IsRegular() {
		return nil, errcode.New(errcode.FileOperationFailure, "not a file")
	}
	parsed, err := eif.Open(f, info.Size())
	if err != nil {
		return nil, errcode.Wrap(errcode.EIFParsing, err)
	}
	header := parsed.Header()
	if arch := header.Arch(); arch != eif.ArchX86_64 {
		return nil, errcode.New(errcode.EIFParsing, "the image is for %s: nesim runs images for x86_64", arch)
	}
	host, _ := ReadHostMemory() // an unknown size refuses nothing
	if err := checkMemory(spec.MemoryMiB, info.Size(), host); err != nil {
		return nil, err
	}
	if err := checkSignature(parsed); err != nil {
		return nil, errcode.Wrap(errcode.EIFSignatureChecker, err)
	}
	identity, _ := parsed.Identity() // an image runs with bad metadata too: nothing of it is measured
	return &image{f, info.Size(), identity}, nil
}

// checkSignature refuses a certificate that is out of its dates, as nitro-cli does before the start.
func checkSignature(img *eif.Image) error {
	signature, err := img.Signature()
	if err != nil || signature == nil {
		return err
	}
	return signature.CheckValidity(time.Now())
}

// launch gives a new enclave its memory, image and CPUs, starts it and waits for its heartbeat.
func (e *enclave) launch(ctx context.Context, spec RunSpec, img *image, progress func(string)) (info RunInfo, err error) {
	info = RunInfo{Name: e.name, ID: e.id, ProcessID: os.Getpid()}
	progress("Start allocating memory...")
	if info.MemoryMiB, err = e.load(ctx, spec, img); err != nil {
		return info, err
	}
	if info.CPUIDs, err = e.addCPUs(spec); err != nil {
		return info, err
	}
	info.CPUCount = len(info.CPUIDs)
	heartbeat, err := e.instance.heartbeats.Expect()
	if err != nil {
		return info, err
	}
	defer heartbeat.Close()
	if info.CID, err = e.start(spec); err != nil {
		return info, err
	}
	e.publish(info, img.identity, false)
	progress(fmt.Sprintf("Started enclave with enclave-cid: %d, memory: %d MiB, cpu-ids: %s",
		info.CID, info.MemoryMiB, strings.ReplaceAll(fmt.Sprint(info.CPUIDs), " ", ", ")))
	if err := e.await(ctx, heartbeat, info, img); err != nil {
		return info, err
	}
	e.publish(info, img.identity, true)
	return info, nil
}

// publish makes known what the enclave has, and whether it runs.
func (e *enclave) publish(info RunInfo, identity eif.Identity, running bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.info.RunInfo, e.info.Identity, e.running = info, identity, running
	if slot, ok := e.instance.hypervisor.Slot(e.driver.SlotUID()); ok && slot.Measurements != nil {
		e.info.Measurements = *slot.Measurements
	}
}

// load writes the image into huge pages and donates them. It returns their size in MiB.
func (e *enclave) load(ctx context.Context, spec RunSpec, img *image) (uint64, error) {
	size := (spec.MemoryMiB*mib + hugePage - 1) / hugePage * hugePage
	memory, err := e.process.Mmap(nedriver.MapSpec{Size: size, PageSize: hugePage})
	if err != nil {
		return 0, errcode.New(errcode.InsufficientMemoryAvailable, "allocate %d MiB for the enclave: %w", spec.MemoryMiB, err)
	}
	offset, err := e.driver.GetImageLoadInfo(nedriver.NEEIFImage)
	if err != nil {
		return 0, errcode.New(errcode.IoctlFailure, "ask where the image goes: %w", err)
	}
	if err := copyImage(ctx, memory, int64(offset), img); err != nil {
		return 0, errcode.New(errcode.EIFParsing, "load the image into the enclave's memory: %w", err)
	}
	err = e.driver.SetUserMemoryRegion(nedriver.UserMemoryRegion{MemorySize: size, UserspaceAddr: memory.Addr()})
	if err != nil {
		return 0, errcode.New(errcode.IoctlFailure, "donate the memory: %w", err)
	}
	return size / mib, nil
}

// copyImage copies the image into memory, as much of it as there was when it was checked.
func copyImage(ctx context.Context, memory io.WriterAt, offset int64, img *image) error {
	n, err := io.CopyBuffer(io.NewOffsetWriter(memory, offset), &contextReader{ctx, io.NewSectionReader(img, 0, img.size)}, make([]byte, mib))
	if err == nil && n != img.size {
		return io.ErrUnexpectedEOF
	}
	return err
}

// contextReader ends with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// addCPUs gives the enclave the CPUs that were named, or as many as were asked for.
func (e *enclave) addCPUs(spec RunSpec) (ids []uint32, err error) {
	wanted := spec.CPUIDs
	if len(wanted) == 0 {
		wanted = make([]uint32, spec.CPUCount) // CPU 0 lets the driver choose
	}
	for _, id := range wanted {
		cpu, err := e.driver.AddVCPU(id)
		if err != nil {
			return nil, errcode.New(errcode.IoctlFailure, "add CPU %s: %w (the pool is %s)", cpuName(id), err, e.instance.cfg.CPUPool)
		}
		ids = append(ids, cpu)
	}
	return ids, nil
}

func cpuName(id uint32) string {
	if id == 0 {
		return "of the pool"
	}
	return fmt.Sprint(id)
}

func (e *enclave) start(spec RunSpec) (cid uint64, err error) {
	start := nedriver.StartInfo{EnclaveCID: spec.CID}
	if spec.Debug {
		start.Flags = nedriver.NEEnclaveDebugMode
	}
	cid, err = e.driver.StartEnclave(start)
	// The driver's code is all that a real parent sees, and of an image that cannot boot not even that: it waits for the
	// heartbeat. The hypervisor knows more.
	slot, _ := e.instance.hypervisor.Slot(e.driver.SlotUID())
	switch {
	case err != nil && slot.Err != nil:
		err = fmt.Errorf("start the enclave: %w", slot.Err)
	case err == nil && slot.Unbootable != nil:
		err = fmt.Errorf("start the enclave: %w", slot.Unbootable)
	}
	return cid, errcode.Wrap(startCode(err), err)
}

// startCode is E29 as from nitro-cli, but for an image that the hypervisor found bad: of some nitro-cli would find the
// same in the file before it, and for the heartbeat of others it waits in vain.
func startCode(err error) errcode.Code {
	switch {
	case errors.Is(err, eif.ErrSignature):
		return errcode.EIFSignatureChecker
	case errors.Is(err, eif.ErrFormat), errors.Is(err, eif.ErrCRC):
		return errcode.EIFParsing
	case errors.Is(err, hypervisor.ErrUnbootable):
		return errcode.EnclaveBootFailure
	}
	return errcode.IoctlFailure
}

// await waits for the enclave to say that it has booted, for as long as nitro-cli does.
func (e *enclave) await(ctx context.Context, heartbeat *parent.Expectation, info RunInfo, img *image) error {
	err := heartbeat.Wait(ctx, uint32(info.CID), parent.Timeout(uint64(img.size), info.MemoryMiB*mib), e.driver.Done())
	if err == nil || ctx.Err() != nil {
		return err
	}
	return errcode.New(errcode.EnclaveBootFailure, "the enclave did not boot: %w", e.explain(ctx, err, uint32(info.CID)))
}

// explain gives the error of an enclave that sent no heartbeat its cause: how the enclave ended, if that tells more than
// that it did, or else what its console said last.
func (e *enclave) explain(ctx context.Context, err error, cid uint32) error {
	if errors.Is(err, parent.ErrEnded) || e.hungUp() {
		select {
		case <-e.ended:
		case <-ctx.Done():
			return err
		}
		if e.ending.Detail != "" {
			return errors.New(e.ending.Cause() + e.advice())
		}
		err = errors.New(e.ending.Cause() + " before its heartbeat")
	}
	lines := e.instance.vmm.LastLines(cid, lastLines)
	if len(lines) == 0 {
		return fmt.Errorf("%w; its console is empty", err)
	}
	return fmt.Errorf("%w; its console's last lines: %s", err, strings.Join(lines, " | "))
}

// advice says what to do about an end, if that is known.
func (e *enclave) advice() string {
	if e.instance.accel == qemu.KVM && strings.Contains(e.ending.Detail, "KVM") {
		return ": KVM does not run this kernel here, use NESIM_ACCEL=auto or tcg"
	}
	return ""
}

// baseName is the name that nitro-cli gives an enclave by its image's file.
func baseName(path string) string { return strings.TrimSuffix(filepath.Base(path), ".eif") }
