package nedriver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/pcidev"
)

// fakePCI is a device that does what it is told and remembers what it was asked.
type fakePCI struct {
	mu         sync.Mutex
	requests   []pcidev.Request
	states     map[uint64]uint16 // by slot
	refuse     map[pcidev.Command]unix.Errno
	maxRegions uint64
	maxMaps    int
	mapped     map[uint64]extent
	nextSlot   uint64
	disabled   bool
	closed     bool

	events chan struct{}
	gone   chan struct{}
}

func newFakePCI() *fakePCI {
	return &fakePCI{
		states:     make(map[uint64]uint16),
		refuse:     make(map[pcidev.Command]unix.Errno),
		mapped:     make(map[uint64]extent),
		maxRegions: 64,
		maxMaps:    1 << 20,
		events:     make(chan struct{}, 16),
		gone:       make(chan struct{}),
	}
}

func (f *fakePCI) isGone() bool {
	select {
	case <-f.gone:
		return true
	default:
		return false
	}
}

func (f *fakePCI) do(req pcidev.Request) (reply pcidev.Reply, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, req)
	if f.isGone() {
		return reply, fmt.Errorf("%v: %w", req.Command(), ErrDeviceGone)
	}
	if errno, ok := f.refuse[req.Command()]; ok {
		return reply, fmt.Errorf("device refuses: %w", errno)
	}
	switch r := req.(type) {
	case pcidev.SlotAllocReq:
		f.nextSlot++
		f.states[f.nextSlot] = pcidev.StateInit
		reply.SlotUID, reply.MemRegions = f.nextSlot, f.maxRegions
	case pcidev.EnclaveStartReq:
		f.states[r.SlotUID] = pcidev.StateRunning
		if reply.EnclaveCID = r.EnclaveCID; r.EnclaveCID == 0 {
			reply.EnclaveCID = 16
		}
	case pcidev.EnclaveStopReq:
		f.states[r.SlotUID] = pcidev.StateStopped
	case pcidev.SlotInfoReq:
		reply.State = f.states[r.SlotUID]
	case pcidev.SlotFreeReq:
		delete(f.states, r.SlotUID)
	}
	return reply, nil
}

func (f *fakePCI) dmaMap(phys, size uint64, _ *os.File, off uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.mapped[phys]; ok {
		return unix.EEXIST
	}
	if len(f.mapped) == f.maxMaps {
		return unix.ENOSPC
	}
	f.mapped[phys] = extent{phys, off, size}
	return nil
}

func (f *fakePCI) dmaUnmap(phys, size uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e, ok := f.mapped[phys]; !ok || e.size != size {
		return unix.ENOENT
	}
	delete(f.mapped, phys)
	return nil
}

func (f *fakePCI) waitEvent(ctx context.Context) error {
	select {
	case <-f.events:
		return nil
	case <-f.gone:
		return ErrDeviceGone
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *fakePCI) disable() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.disabled = true
	if f.isGone() {
		return ErrDeviceGone
	}
	clear(f.states)
	return nil
}

func (f *fakePCI) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
}

// crash ends a slot's enclave as if by itself.
func (f *fakePCI) crash(slot uint64) {
	f.mu.Lock()
	f.states[slot] = pcidev.StateStopped
	f.mu.Unlock()
	f.events <- struct{}{}
}

// set changes how the device behaves.
func (f *fakePCI) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// asked returns the requests so far and forgets them.
func (f *fakePCI) asked() []pcidev.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	requests := f.requests
	f.requests = nil
	return requests
}

func (f *fakePCI) mappings() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.mapped)
}

// world is a parent instance with a loaded driver, a process and its open device file.
type world struct {
	*testing.T
	host    *Host
	dev     *fakePCI
	driver  *Driver
	process *Process
	file    *File
}

// newWorld has 8 CPUs, two a core, two NUMA nodes, and pool "2,3" of node 0 unless config says otherwise.
func newWorld(t *testing.T, config HostConfig, cpus string) *world {
	t.Helper()
	noLeaks(t)
	if config.Topology.CPUs == 0 {
		config.Topology = Topology{CPUs: 8, ThreadsPerCore: 2, NUMANodes: 2}
	}
	host, err := NewHost(config)
	require.NoError(t, err)
	w := &world{T: t, host: host, dev: newFakePCI()}
	w.driver = newDriver(host, w.dev)
	w.process = host.NewProcess()
	w.file = w.driver.Open(w.process)
	t.Cleanup(func() {
		w.process.Exit()
		w.driver.Close()
		require.True(t, w.dev.disabled)
		require.True(t, w.dev.closed)
		require.Empty(t, w.dev.mapped, "memory that the device still reaches")
	})
	if cpus != "" {
		require.NoError(t, w.driver.SetCPUs(cpus))
	}
	return w
}

func (w *world) create() *Enclave {
	w.Helper()
	e, err := w.file.CreateVM()
	require.NoError(w, err)
	return e
}

func (w *world) mmap(spec MapSpec) *Mapping {
	w.Helper()
	m, err := w.process.Mmap(spec)
	require.NoError(w, err)
	return m
}

func (w *world) donate(e *Enclave, m *Mapping) {
	w.Helper()
	require.NoError(w, e.SetUserMemoryRegion(UserMemoryRegion{MemorySize: m.Size(), UserspaceAddr: m.Addr()}))
}

func (w *world) addVCPUs(e *Enclave, n int) {
	w.Helper()
	for range n {
		_, err := e.AddVCPU(0)
		require.NoError(w, err)
	}
}

// ready returns an enclave with 64 MiB and one core.
func (w *world) ready() (*Enclave, *Mapping) {
	w.Helper()
	e, m := w.create(), w.mmap(MapSpec{Size: 64 << 20})
	w.donate(e, m)
	w.addVCPUs(e, 2)
	return e, m
}

func (w *world) running() (*Enclave, *Mapping) {
	w.Helper()
	e, m := w.ready()
	_, err := e.StartEnclave(StartInfo{})
	require.NoError(w, err)
	return e, m
}

// noLeaks lets the test fail if it leaves a goroutine or a descriptor behind.
func noLeaks(t *testing.T) {
	goroutines, fds := runtime.NumGoroutine(), openFDs(t)
	t.Cleanup(func() {
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
			if runtime.NumGoroutine() <= goroutines && len(openFDs(t)) <= len(fds) {
				return
			}
			if time.Now().After(end) {
				break
			}
		}
		require.LessOrEqual(t, runtime.NumGoroutine(), goroutines, "goroutines left")
		require.Equal(t, fds, openFDs(t), "descriptors left")
	})
}

// openFDs lists descriptors, without those that the Go runtime makes for itself and keeps.
func openFDs(t *testing.T) []string {
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	var fds []string
	for _, entry := range entries {
		target, err := os.Readlink(filepath.Join("/proc/self/fd", entry.Name()))
		if err == nil && !strings.Contains(target, "eventpoll") && !strings.Contains(target, "/proc/") {
			fds = append(fds, target)
		}
	}
	slices.Sort(fds)
	return fds
}

func requireErrno(t *testing.T, want error, err error) {
	t.Helper()
	require.Error(t, err)
	require.Truef(t, errors.Is(err, want), "want %v, have %v", want, err)
	require.NotContains(t, err.Error(), "\n")
}

func waitDone(t *testing.T, e *Enclave) {
	t.Helper()
	select {
	case <-e.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("the enclave does not hang up")
	}
}
