package record

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/pcidev"
	"github.com/nesim/nesim/qemu/setup"
	"github.com/nesim/nesim/scenarios/run"
	"github.com/nesim/nesim/scenarios/scripted"
	"github.com/nesim/nesim/scenarios/stage"
	"github.com/nesim/nesim/scenarios/steps"
	"github.com/nesim/nesim/scenarios/trace"
	"github.com/nesim/nesim/sim/hypervisor"
	"github.com/nesim/nesim/sim/nedriver"
	"github.com/nesim/nesim/sim/primary"
	"github.com/nesim/nesim/sim/vsock"
)

// world is a device at a socket and a proxy before it.
type world struct {
	t         *testing.T
	socket    string // the proxy's
	recording bytes.Buffer
	stop      func()
	machines  *scripted.VMM
}

func newWorld(t *testing.T) *world {
	dir := t.TempDir()
	w := &world{t: t, socket: filepath.Join(dir, "proxy")}
	sw := vsock.New()
	w.machines = scripted.New(scripted.Config{Net: sw, Behaviour: func(hypervisor.VMSpec) scripted.Behaviour {
		return scripted.Behaviour{Mute: true}
	}})
	hv := hypervisor.New(hypervisor.Config{VMM: w.machines})
	listen := func(path string) *net.UnixListener {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		require.NoError(t, err)
		return l
	}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	device, proxy := listen(filepath.Join(dir, "device")), listen(w.socket)
	all.Go(func() { require.NoError(t, pcidev.Serve(ctx, device, hv)) })
	all.Go(func() { require.NoError(t, Proxy(ctx, proxy, filepath.Join(dir, "device"), &w.recording)) })
	w.stop = sync.OnceFunc(func() {
		cancel()
		all.Wait()
		require.NoError(t, hv.Close())
		require.NoError(t, sw.Close())
	})
	t.Cleanup(w.stop)
	return w
}

// entries ends the world and reads what was recorded.
func (w *world) entries() []Entry {
	w.stop()
	entries, err := Read(context.Background(), bytes.NewReader(w.recording.Bytes()))
	require.NoError(w.t, err)
	return entries
}

// live lives an enclave's life through the real driver.
func (w *world) live() {
	t := w.t
	host, err := nedriver.NewHost(nedriver.HostConfig{Topology: nedriver.Topology{CPUs: 8}})
	require.NoError(t, err)
	d, err := nedriver.Load(t.Context(), host, w.socket)
	require.NoError(t, err)
	require.NoError(t, d.SetCPUs("2-7"))
	p := host.NewProcess()
	memory, err := p.Mmap(nedriver.MapSpec{Size: 512 << 20})
	require.NoError(t, err)
	for i, damaged := range []bool{false, true} {
		e, err := d.Open(p).CreateVM()
		require.NoError(t, err)
		_, err = memory.WriteAt(standIn, nedriver.EIFLoadOffset)
		require.NoError(t, err)
		if damaged {
			_, err = memory.WriteAt([]byte("damaged"), nedriver.EIFLoadOffset+600)
			require.NoError(t, err)
		}
		require.NoError(t, e.SetUserMemoryRegion(nedriver.UserMemoryRegion{MemorySize: memory.Size(), UserspaceAddr: memory.Addr()}))
		for range 2 {
			_, err = e.AddVCPU(0)
			require.NoError(t, err)
		}
		cid, err := e.StartEnclave(nedriver.StartInfo{})
		require.NoError(t, err, "an image that cannot boot is started too")
		if i == 0 {
			w.machines.Kill(uint32(cid))
			<-e.Done()
			require.ErrorIs(t, e.Err(), nedriver.ErrHangUp)
		}
		require.NoError(t, e.Close())
	}
	require.NoError(t, p.Exit())
	require.NoError(t, d.Close())
}

func names(entries []Entry) (text string) {
	for _, e := range entries {
		text += e.What + " "
	}
	return text
}

func TestALifeIsRecordedAndReplayed(t *testing.T) {
	w := newWorld(t)
	w.live()
	entries := w.entries()
	require.Equal(t, "attached disabled SLOT_ALLOC SLOT_ADD_MEM SLOT_ADD_VCPU SLOT_ADD_VCPU ENCLAVE_START SLOT_INFO SLOT_FREE "+
		"SLOT_ALLOC SLOT_ADD_MEM SLOT_ADD_VCPU SLOT_ADD_VCPU ENCLAVE_START ENCLAVE_STOP SLOT_FREE disabled detached ", names(entries))
	require.EqualValues(t, pcidev.StateStopped, entries[7].Reply.State)
	require.Zero(t, entries[13].Reply.RC)
	require.EqualValues(t, 512<<20, entries[3].Request[2])

	differences, err := Replay(context.Background(), entries)
	require.NoError(t, err)
	require.Empty(t, differences)

	t.Run("another device's replies are told", func(t *testing.T) {
		entries[4].Reply.RC = -int32(unix.EPERM)
		differences, err := Replay(context.Background(), entries)
		require.NoError(t, err)
		require.Equal(t, "entry 5, SLOT_ADD_VCPU of session 1: rc was 0x1 and is 0x0", differences[0].String())

		require.Equal(t, "SLOT_ALLOC SLOT_ADD_VCPU ", names(Shrink(t.Context(), entries, Shows(t.Context(), differences[0]))))
	})
}

func TestWhatGoesWrongIsReplayedToo(t *testing.T) {
	uid, none := uint64(0x5eed), uint64(0xbad)
	entry := func(c pcidev.Request, r Reply) Entry {
		e := entryOf(c, pcidev.Reply{})
		e.Session, e.Reply = 1, &r
		return e
	}
	entries := []Entry{
		{Session: 1, What: Attached},
		entry(pcidev.SlotAllocReq{}, Reply{SlotUID: uid, MemRegions: pcidev.MaxMemRegions}),
		entry(pcidev.SlotAllocReq{}, Reply{RC: -int32(unix.ENOSPC)}),
		entry(pcidev.SlotFreeReq{SlotUID: none}, Reply{RC: -int32(unix.ENOENT)}),
		entry(pcidev.SlotAddMemReq{SlotUID: uid, PAddr: 2 << 20, Size: 2 << 20}, Reply{RC: -int32(unix.EFAULT)}),
		entry(pcidev.SlotAddMemReq{SlotUID: uid, PAddr: 1 << 40, Size: 1 << 40}, Reply{SlotUID: uid}),
		entry(pcidev.SlotAddBulkVCPUsReq{SlotUID: uid, NrVCPUs: 2}, Reply{SlotUID: uid}),
		entry(pcidev.EnclaveStartReq{SlotUID: uid}, Reply{RC: -int32(unix.EIO)}),
		entry(pcidev.EnclaveStartReq{SlotUID: uid}, Reply{SlotUID: uid, EnclaveCID: 77}),
		entry(pcidev.EnclaveGetSlotReq{EnclaveCID: 77}, Reply{SlotUID: uid, EnclaveCID: 77, MemRegions: 1, MemSize: 1 << 40, NrVCPUs: 2, State: 2}),
		entry(pcidev.NextSlotReq{}, Reply{SlotUID: uid, EnclaveCID: 77, MemRegions: 1, MemSize: 1 << 40, NrVCPUs: 2, State: 0xffff}),
		entry(pcidev.EnclaveStopReq{SlotUID: uid}, Reply{SlotUID: uid}),
		{Session: 1, What: "SLOT_COUNT"},
		{Session: 1, What: Disabled, At: time.Hour},
		entry(pcidev.SlotCountReq{}, Reply{}),
		{Session: 1, What: Detached, At: 2 * time.Hour},
	}
	differences, err := Replay(context.Background(), entries)
	require.NoError(t, err)
	require.Empty(t, differences)
}

func TestARecordingBecomesAScenario(t *testing.T) {
	w := newWorld(t)
	w.live()
	text, err := Scenario("a recorded life", w.entries())
	require.NoError(t, err)
	for _, step := range []string{
		"- pci: {command: SLOT_ALLOC, save: slot1}",
		"- pci: {command: SLOT_ADD_MEM, slot: slot1, fields: {offset: 0, size: 67108864}}",
		"- pci: {command: SLOT_ADD_VCPU, slot: slot1, fields: {vcpu_id: 2}}",
		"- pci: {command: ENCLAVE_START, slot: slot1, fields: {enclave_cid: 16, flags: 0}}",
		"- pci: {command: ENCLAVE_STOP, slot: slot1} # where",
		"- pci: {command: SLOT_INFO, slot: slot1, state: stopped}",
		"- pci: {command: ENCLAVE_START, slot: slot2, fields: {enclave_cid: 17, flags: 0}}",
		"- pci: {command: ENCLAVE_STOP, slot: slot2}",
		"- pci: {command: SLOT_FREE, slot: slot2}",
	} {
		require.Contains(t, text, step)
	}
}

func TestAPieceOfAnEntryAtTheEndIsLeftOut(t *testing.T) {
	whole := `{"at_ns":1,"session":1,"what":"attached"}` + "\n" + `{"at_ns":2,"session":1,"what":"reset"}` + "\n"
	for cut := range len(whole) + 1 {
		entries, err := Read(context.Background(), strings.NewReader(whole[:cut]))
		require.NoError(t, err, whole[:cut])
		require.LessOrEqual(t, strings.Count(whole[:cut], "\n"), len(entries))
	}
	_, err := Read(context.Background(), strings.NewReader(`{"at_ns":1,"session`+"\n"+whole))
	require.ErrorContains(t, err, "line 1 is no entry of a recording")
}

func TestAnInterruptEndsReadingReplayingAndShrinking(t *testing.T) {
	entries, err := Read(t.Context(), strings.NewReader(strings.Repeat(`{"at_ns":1,"session":1,"what":"attached"}`+"\n", 100)))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = Read(ctx, strings.NewReader(`{"at_ns":1,"session":1,"what":"attached"}`))
	require.ErrorIs(t, err, context.Canceled)
	_, err = Replay(ctx, entries)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, entries, Shrink(ctx, entries, func([]Entry) bool { panic("it should not ask") }))
}

func TestRegionsOfARecordingThatOverlapAreOne(t *testing.T) {
	m := newMemory()
	for _, r := range [][2]uint64{{40, 10}, {10, 10}, {60, 10}, {20, 20}, {0, 5}, {45, 15}, {70, 0}, {^uint64(0), 2}} {
		m.share(r[0], r[1])
	}
	require.Equal(t, []region{{0, 5}, {10, 70}}, m.shared)
	for addr := range uint64(75) {
		for size := range uint64(75) {
			want := size == 0 || addr+size <= 5 || addr >= 10 && addr+size <= 70
			require.Equal(t, want, m.mapped(addr, size), "%d at %d", size, addr)
		}
	}
	require.False(t, m.mapped(^uint64(0), 2))
}

func TestWhatIsNoRecordingIsRefused(t *testing.T) {
	for text, want := range map[string]string{
		"hello\n":                                              "line 1 is no entry",
		`{"session":1,"what":"SLOT_ALOC"}`:                     `"SLOT_ALOC" is no command`,
		`{"session":0,"what":"attached"}`:                      "sessions count from 1",
		`{"session":1,"what":"SLOT_FREE"}`:                     "payload of SLOT_FREE is 0 bytes, not 8",
		`{"session":1,"what":"SLOT_FREE","request":[1,2,3,4]}`: "a request has 3 numbers",
		strings.Repeat("x", maxEntry+1):                        "this is no recording",
	} {
		_, err := Read(context.Background(), strings.NewReader(text))
		require.ErrorContains(t, err, want)
	}
	_, err := Replay(context.Background(), []Entry{{What: "nothing"}})
	require.Error(t, err)
	_, err = Scenario("", []Entry{{What: "nothing"}})
	require.Error(t, err)
}

func TestTheProxyTellsOfADeviceThatIsNotThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "proxy")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- Proxy(t.Context(), l, path+"-nowhere", &bytes.Buffer{}) }()
	conn, err := net.Dial("unix", path)
	require.NoError(t, err)
	defer conn.Close()
	require.ErrorIs(t, <-done, os.ErrNotExist)
}

func FuzzReplay(f *testing.F) {
	f.Add([]byte(`{"session":1,"what":"SLOT_ALLOC","reply":{"rc":0,"slot_uid":5}}
{"session":1,"what":"SLOT_ADD_MEM","request":[5,4294967296,67108864],"reply":{"rc":0}}
{"session":1,"what":"SLOT_ADD_BULK_VCPUS","request":[5,2],"reply":{"rc":0}}
{"session":1,"what":"ENCLAVE_START","request":[5,0,0],"reply":{"rc":0,"enclave_cid":20}}
{"session":1,"what":"SLOT_INFO","request":[5],"reply":{"rc":0,"slot_uid":5,"state":65535}}
{"session":1,"what":"reset"}
{"session":2,"what":"SLOT_COUNT","reply":{"rc":-5}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := Read(context.Background(), bytes.NewReader(data))
		if err != nil || len(entries) > 100 {
			return
		}
		_, _ = Scenario("fuzzed", entries)
		_, _ = Replay(context.Background(), entries)
	})
}

func FuzzMessages(f *testing.F) {
	f.Add([]byte{1, 0, 9, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := &tap{recorder: &recorder{began: time.Now(), out: json.NewEncoder(io.Discard), failed: func(error) {}}, session: 1, reads: make(map[uint16]access)}
		for _, each := range []func(message){r.asked, r.answered} {
			m := messages{each: each}
			m.feed(data[:len(data)/2])
			m.feed(data[len(data)/2:])
		}
		r.tell(Detached)
	})
}

func TestARecordedScenarioPasses(t *testing.T) {
	w := newWorld(t)
	w.live()
	text, err := Scenario("a recorded life", w.entries())
	require.NoError(t, err)
	list, err := steps.Language.Parse("recorded.yaml", []byte(text))
	require.NoError(t, err, text)
	require.Len(t, list, 1)
	result := run.Run(t.Context(), list[0], run.Options{Engine: stage.Scripted})
	require.Equal(t, trace.Passed, result.Status, "%s\n%s", result.Error, text)
}

func TestAPrimaryVMsDriverIsRecorded(t *testing.T) {
	w := newWorld(t)
	q, err := setup.FindQEMU(t.Context())
	require.NoError(t, err)
	kernel, err := setup.FindDebianKernel()
	require.NoError(t, err)
	busybox, err := setup.FindBusybox()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	var out bytes.Buffer
	code, err := primary.Run(ctx, primary.Config{
		QEMU: q, Kernel: kernel, Busybox: busybox, PCISocket: w.socket, Command: "ls /dev/nitro_enclaves", Stdout: &out, Stderr: &out,
	})
	require.NoError(t, err)
	require.Zero(t, code, "%s", out.String())
	text := names(w.entries())
	require.True(t, strings.HasPrefix(text, "attached reset "), text)
	require.Contains(t, text, "disabled", "the driver switches the device off before it uses it")
	require.True(t, strings.HasSuffix(text, "detached "), text)
}

func TestAHypervisorRecordsItsSessions(t *testing.T) {
	sw := vsock.New()
	machines := scripted.New(scripted.Config{Net: sw})
	hv := hypervisor.New(hypervisor.Config{VMM: machines})
	var out bytes.Buffer
	s, err := newSession(Hypervisor(hv, &out, nil))
	require.NoError(t, err)
	reply, err := s.do(pcidev.SlotAllocReq{})
	require.NoError(t, err)
	_, err = s.do(pcidev.SlotAddMemReq{SlotUID: reply.SlotUID, PAddr: 1 << 32, Size: 1 << 30})
	require.NoError(t, err)
	require.NoError(t, s.restart())
	s.close()
	require.NoError(t, hv.Close())
	entries, err := Read(context.Background(), &out)
	require.NoError(t, err)
	require.Equal(t, "attached SLOT_ALLOC SLOT_ADD_MEM disabled detached ", names(entries))
	require.EqualValues(t, -int32(unix.EFAULT), entries[2].Reply.RC)
	differences, err := Replay(context.Background(), entries)
	require.NoError(t, err)
	require.Empty(t, differences)
}
