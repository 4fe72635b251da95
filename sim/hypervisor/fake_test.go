package hypervisor

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/nesim/nesim/eif"
	"github.com/nesim/nesim/pcidev"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const mib = 1 << 20

// ram is a parent's physical memory: one memfd from base on.
type ram struct {
	base, size uint64
	file       *os.File

	mu       sync.Mutex
	unmapped bool
	onRead   func(paddr uint64) error
	onWrite  func(paddr uint64) error
	onZero   func(paddr uint64) error
}

func newRAM(t testing.TB, size uint64) *ram {
	f, err := memfd("parent")
	require.NoError(t, err)
	require.NoError(t, f.Truncate(int64(size)))
	t.Cleanup(func() { f.Close() })
	return &ram{base: 4 << 30, size: size, file: f}
}

func (r *ram) Mapped(paddr, size uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.unmapped && paddr >= r.base && size <= r.size && paddr-r.base <= r.size-size
}

func (r *ram) access(hook func(uint64) error, paddr uint64, size int) error {
	if !r.Mapped(paddr, uint64(size)) {
		return unix.EFAULT
	}
	if hook != nil {
		return hook(paddr)
	}
	return nil
}

func (r *ram) ReadAt(p []byte, paddr uint64) error {
	if err := r.access(r.onRead, paddr, len(p)); err != nil {
		return err
	}
	_, err := r.file.ReadAt(p, int64(paddr-r.base))
	return err
}

func (r *ram) WriteAt(p []byte, paddr uint64) error {
	if err := r.access(r.onWrite, paddr, len(p)); err != nil {
		return err
	}
	_, err := r.file.WriteAt(p, int64(paddr-r.base))
	return err
}

func (r *ram) Zero(paddr, size uint64) error {
	if err := r.access(r.onZero, paddr, int(size)); err != nil {
		return err
	}
	return unix.Fallocate(int(r.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(paddr-r.base), int64(size))
}

// at is a page of the parent's memory, 2 MiB each.
func (r *ram) at(page uint64) uint64 { return r.base + page*2*mib }

// zeroed reports whether all of it reads as zeroes.
func (r *ram) zeroed(t testing.TB) bool {
	buf, zeroes := make([]byte, mib), make([]byte, mib)
	for off := uint64(0); off < r.size; off += mib {
		_, err := r.file.ReadAt(buf, int64(off))
		require.NoError(t, err)
		if !bytes.Equal(buf, zeroes) {
			return false
		}
	}
	return true
}

// held is how much memory a memfd takes, in bytes.
func held(t testing.TB, f *os.File) int64 {
	var st unix.Stat_t
	require.NoError(t, unix.Fstat(int(f.Fd()), &st))
	return st.Blocks * 512
}

// vmm is a scripted VMM. Each VM ends by what is sent to its end channel, or when it is stopped.
type vmm struct {
	onStart func(ctx context.Context, spec VMSpec) error

	mu  sync.Mutex
	vms map[uint32]*vm // by CID
}

type vm struct {
	spec           VMSpec
	kernel, initrd []byte
	end            chan Exit
	stop           sync.Once
}

func (v *vmm) Start(ctx context.Context, spec VMSpec) (VM, error) {
	if v.onStart != nil {
		if err := v.onStart(ctx, spec); err != nil {
			return nil, err
		}
	}
	m := &vm{spec: spec, end: make(chan Exit, 2)}
	var err1, err2 error
	m.kernel, err1 = readFile(spec.Kernel)
	if spec.Initrd != nil {
		m.initrd, err2 = readFile(spec.Initrd)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.vms == nil {
		v.vms = map[uint32]*vm{}
	}
	v.vms[spec.CID] = m
	return m, errors.Join(err1, err2)
}

func readFile(f *os.File) ([]byte, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.NewSectionReader(f, 0, st.Size()))
}

func (m *vm) Wait() Exit { return <-m.end }

func (m *vm) Stop(context.Context) error {
	m.stop.Do(func() { m.end <- Exit{Reason: ExitAsked} })
	return nil
}

func (v *vmm) vm(cid uint64) *vm {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.vms[uint32(cid)]
}

// host is a hypervisor with one parent.
type host struct {
	*testing.T
	*Hypervisor
	*Session
	ram    *ram
	vmm    *vmm
	mu     sync.Mutex
	events []Event
	rung   int // how often the event vector was raised
}

func (h *host) seen(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, e)
}

func (h *host) notified() int {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.rung
}

func (h *host) kinds() (out []EventKind) {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.events {
		out = append(out, e.Kind)
	}
	return out
}

// test runs f with a hypervisor in a bubble, whose end tells of goroutines that were left, and counts descriptors.
func test(t *testing.T, f func(h *host)) {
	synctest.Test(t, func(t *testing.T) {
		r := newRAM(t, 256*mib)
		before := openFiles(t)
		h := &host{T: t, ram: r, vmm: &vmm{}}
		h.Hypervisor = New(Config{VMM: h.vmm, VCPUs: 8, Observe: h.seen})
		h.Session = h.attach(r)
		f(h)
		require.NoError(t, h.Hypervisor.Close())
		require.Empty(t, h.Slots())
		require.Empty(t, h.cids)
		require.Empty(t, h.sessions)
		require.Equal(t, before, openFiles(t), "files left open")
	})
}

func openFiles(t testing.TB) []string {
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	var out []string
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && !strings.HasPrefix(target, "/memfd:parent") { // the tests' own
			out = append(out, target)
		}
	}
	return out
}

func (h *host) attach(mem pcidev.Memory) *Session {
	s, err := h.Attach(mem, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.rung++
	})
	require.NoError(h, err)
	return s.(*Session)
}

func (h *host) alloc() uint64 {
	h.Helper()
	uid, err := h.SlotAlloc()
	require.NoError(h, err)
	return uid
}

// picture is an image of about n bytes with two ramdisks, and what it is made of.
type picture struct {
	eif, kernel, initrd []byte
	measurements        eif.Measurements
}

const cmdline = "console=ttyS0 panic=1"

var pictures sync.Map // by size

func newPicture(t testing.TB, n int) *picture {
	if p, ok := pictures.Load(n); ok {
		return p.(*picture)
	}
	app := pattern(n/8, 1)
	p := &picture{kernel: pattern(n/8+13, 2)}
	ramdisk := pattern(n-n/4, 3)
	p.initrd = append(append([]byte{}, app...), ramdisk...)
	var out writerAt
	var err error
	p.measurements, err = eif.Build(context.Background(), &out, eif.BuildSpec{
		Kernel:   bytes.NewReader(p.kernel),
		Cmdline:  cmdline,
		Ramdisks: []io.Reader{bytes.NewReader(app), bytes.NewReader(ramdisk)},
		Metadata: []byte("{}"),
	})
	require.NoError(t, err)
	p.eif = out.b
	pictures.Store(n, p)
	return p
}

func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range min(n, 4001) { // no divisor of any page's or chunk's size
		b[i] = byte(i)*seed + byte(i>>8)
	}
	for i := 4001; i < n; i *= 2 {
		copy(b[i:], b[:i])
	}
	return b
}

type writerAt struct{ b []byte }

func (w *writerAt) WriteAt(p []byte, off int64) (int, error) {
	if end := int(off) + len(p); end > len(w.b) {
		w.b = append(w.b, make([]byte, end-len(w.b))...)
	}
	return copy(w.b[off:], p), nil
}

// load puts an image where a start looks for it, into regions of 2 MiB pages.
func (h *host) load(image []byte, regions ...region) {
	h.Helper()
	d := donation{mem: h.ram}
	for _, r := range regions {
		d.regions = append(d.regions, r)
		d.size += int64(r.size)
	}
	require.NoError(h, d.writeAt(image, imageOffset))
}

func (h *host) whole() region { return region{h.ram.base, 64 * mib} }

// ready makes a slot with an image, 64 MiB and a vCPU.
func (h *host) ready(image []byte) uint64 {
	h.Helper()
	uid := h.alloc()
	h.load(image, h.whole())
	require.NoError(h, h.SlotAddMem(uid, h.ram.base, 64*mib))
	require.NoError(h, h.SlotAddVCPU(uid, 2))
	return uid
}

func (h *host) state(uid uint64) uint16 {
	h.Helper()
	info, err := h.SlotInfo(uid)
	require.NoError(h, err)
	return info.State
}
