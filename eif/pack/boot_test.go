package pack

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/mdlayher/vsock"
	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/eif"
	"github.com/nesim/nesim/eif/inspect"
	"github.com/nesim/nesim/qemu"
	"github.com/nesim/nesim/qemu/setup"
	"github.com/nesim/nesim/qemu/vhostuser"
	"github.com/nesim/nesim/qemu/vsockdev"
)

// patience is how long a microvm may take for one step on a busy machine.
const patience = 2 * time.Minute

// heartbeatPort and heartbeatByte are what AWS's init.c and nitro-cli agree on (VSOCK_PORT, HEART_BEAT).
const (
	heartbeatPort = 9000
	heartbeatByte = 0xb7
)

// enclave is an image that runs in a microvm.
type enclave struct {
	t         testing.TB
	machine   *qemu.Machine
	vsock     *vsockdev.Device
	console   *console
	heartbeat chan struct{} // closed when it was heard
}

// programsDir is where buildPrograms builds, in its folder programs.
var programsDir string

func TestMain(m *testing.M) {
	var err error
	if programsDir, err = os.MkdirTemp("", "programs"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	programs = os.DirFS(programsDir)
	code := m.Run()
	os.RemoveAll(programsDir)
	os.Exit(code)
}

// buildPrograms builds init and hello once, from this checkout rather than as they were embedded.
var buildPrograms = sync.OnceValue(func() error {
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=",
		"-o", programsDir+"/programs/", "../../cmd/init", "../../cmd/hello")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
})

// helloSpec returns a spec of the hello enclave on a kernel, with the programs of this checkout.
func helloSpec(t testing.TB, kernel setup.Kernel) Spec {
	t.Helper()
	require.NoError(t, buildPrograms())
	hello, err := os.ReadFile(filepath.Join(programsDir, "programs", "hello"))
	require.NoError(t, err)
	modules, err := kernel.LoadOrder(Modules...)
	require.NoError(t, err)
	onDemand, err := kernel.LoadOrder(setup.FeatureModules()...)
	require.NoError(t, err)
	return Spec{
		Application: Application{Files: []Entry{file("hello", 0o755, hello)}, Command: []string{"/hello"}, Env: []string{"GREETING=hi"}},
		Kernel:      kernel.Image,
		Modules:     modules,
		OnDemand:    onDemand,
		Output:      filepath.Join(t.TempDir(), "hello.eif"),
	}
}

// onEachKernel runs a test on every kernel that an enclave should boot on.
func onEachKernel(t *testing.T, test func(t *testing.T, kernel setup.Kernel)) {
	kernels, err := setup.Kernels()
	require.NoError(t, err)
	for _, kernel := range kernels {
		t.Run(kernel.Release, func(t *testing.T) { test(t, kernel) })
	}
}

// boot builds an image and starts it. With listens, somebody at CID 3 answers the heartbeat.
func boot(t testing.TB, spec Spec, listens bool) *enclave {
	t.Helper()
	_, err := Build(t.Context(), spec)
	require.NoError(t, err)
	kernel, initrd, cmdline := unpack(t, spec.Output)
	program, err := setup.FindQEMU(t.Context())
	require.NoError(t, err)

	e := &enclave{t: t, console: newConsole(), heartbeat: make(chan struct{})}
	config := vsockdev.Config{CID: 16}
	if listens {
		config.Connect = e.connected
	}
	e.vsock = vsockdev.New(config)
	socket := filepath.Join(t.TempDir(), "vsock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { vhostuser.Serve(ctx, l, e.vsock) })

	info, err := kernel.Stat()
	require.NoError(t, err)
	machine := qemu.ACPI
	takes, err := inspect.TakesCmdlineDevices(t.Context(), kernel, info.Size())
	require.NoError(t, err)
	if takes {
		machine = qemu.Nitro
	}
	e.machine, err = qemu.Start(t.Context(), qemu.Config{
		Name: "hello", Binary: program.Path, CPUs: 1, MemoryBytes: 256 << 20,
		Kernel: kernel, Initrd: initrd, Cmdline: cmdline, Console: e.console, VsockSocket: socket,
		Machines: []qemu.MachineType{machine},
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, e.machine.Stop(context.Background()))
		require.NoError(t, e.vsock.Close())
		cancel()
		serving.Wait()
	})
	return e
}

// unpack writes an image's kernel and ramdisks to files, the ramdisks one behind the other.
func unpack(t testing.TB, path string) (kernel, initrd *os.File, cmdline string) {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	info, err := f.Stat()
	require.NoError(t, err)
	image, err := eif.Open(f, info.Size())
	require.NoError(t, err)
	cmdline, err = image.Cmdline()
	require.NoError(t, err)
	write := func(name string, from ...*io.SectionReader) *os.File {
		f, err := os.Create(filepath.Join(t.TempDir(), name))
		require.NoError(t, err)
		t.Cleanup(func() { f.Close() })
		for _, r := range from {
			_, err = io.Copy(f, r)
			require.NoError(t, err)
		}
		return f
	}
	return write("kernel", image.Kernel()), write("initrd", image.Ramdisks()...), cmdline
}

// connected answers the enclave's heartbeat, and refuses all else.
func (e *enclave) connected(_ context.Context, c *vsockdev.Conn) error {
	if to := c.LocalAddr().(*vsock.Addr); to.ContextID != vsock.Host+1 || to.Port != heartbeatPort {
		return errors.New("nobody listens")
	}
	go func() {
		defer c.Close()
		var b [1]byte
		if _, err := io.ReadFull(c, b[:]); err != nil || b[0] != heartbeatByte {
			return
		}
		if _, err := c.Write(b[:]); err == nil {
			io.Copy(io.Discard, c)
			close(e.heartbeat)
		}
	}()
	return nil
}

// alive waits for the heartbeat.
func (e *enclave) alive() {
	e.t.Helper()
	select {
	case <-e.heartbeat:
	case <-e.machine.Done():
		require.Fail(e.t, "the enclave ended before its heartbeat", "%v\n%s", e.machine.Wait(), e.console.text())
	case <-time.After(patience):
		require.Fail(e.t, "no heartbeat", "%s", e.console.text())
	}
}

// dial connects to one of the workload's ports, which it may not listen on yet.
func (e *enclave) dial(port uint32) *vsockdev.Conn {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), patience)
	defer cancel()
	for source := uint32(100000); ; source++ {
		c, err := e.vsock.Dial(ctx, vsock.Addr{ContextID: vsock.Host + 1, Port: source}, port)
		if err == nil {
			e.t.Cleanup(func() { c.Close() })
			return c
		}
		require.NoError(e.t, ctx.Err(), "%v", err)
		time.Sleep(10 * time.Millisecond)
	}
}

// command sends a command to the hello workload and returns its answer.
func (e *enclave) command(line string) string {
	e.t.Helper()
	c := e.dial(5006)
	_, err := fmt.Fprintln(c, line)
	require.NoError(e.t, err)
	require.NoError(e.t, c.SetReadDeadline(time.Now().Add(patience)))
	answer, err := bufio.NewReader(c).ReadString('\n')
	require.NoError(e.t, err)
	return strings.TrimSpace(answer)
}

// ended waits for the enclave's end.
func (e *enclave) ended() qemu.Exit {
	e.t.Helper()
	select {
	case <-e.machine.Done():
	case <-time.After(patience):
		require.Fail(e.t, "the enclave does not end", "%s", e.console.text())
	}
	return e.machine.Wait()
}

// console gathers what an enclave prints.
type console struct {
	mu      sync.Mutex
	all     bytes.Buffer
	written *sync.Cond
}

func newConsole() *console {
	c := &console{}
	c.written = sync.NewCond(&c.mu)
	return c
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.written.Broadcast()
	return c.all.Write(p)
}

func (c *console) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all.String()
}

// waitFor waits until the console says something.
func (c *console) waitFor(t testing.TB, text string) {
	t.Helper()
	late := time.AfterFunc(patience, func() { c.Write([]byte("\n(patience ended)")) })
	defer late.Stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for !strings.Contains(c.all.String(), text) {
		require.NotContains(t, c.all.String(), "(patience ended)", "waiting for %q", text)
		c.written.Wait()
	}
}

func TestTheHelloEnclaveBootsTalksAndExits(t *testing.T) {
	onEachKernel(t, theHelloEnclaveBootsTalksAndExits)
}

func theHelloEnclaveBootsTalksAndExits(t *testing.T, kernel setup.Kernel) {
	e := boot(t, helloSpec(t, kernel), true)
	e.alive()
	e.console.waitFor(t, "init: heartbeat answered by CID 3; starting /hello")
	e.console.waitFor(t, "hello from the enclave, up 1 s")

	var talks sync.WaitGroup
	for range 8 {
		c := e.dial(5005)
		talks.Go(func() {
			sent := bytes.Repeat([]byte("echo!"), 40<<10)
			go func() {
				c.Write(sent)
				c.CloseWrite()
			}()
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(sent, got) {
				t.Errorf("echo of %d bytes: got %d, %v", len(sent), len(got), err)
			}
		})
	}
	talks.Wait()

	require.Equal(t, "GREETING=hi", e.command("env"))
	require.Equal(t, "exiting with code 3", e.command("exit 3"))
	require.Equal(t, qemu.GuestReset, e.ended().Reason)
	require.Contains(t, e.console.text(), "init: workload exited with code 3; powering off")
}

func TestAnELFKernelBootsToo(t *testing.T) {
	onEachKernel(t, func(t *testing.T, kernel setup.Kernel) {
		spec := helloSpec(t, kernel)
		spec.Kernel = vmlinux(t, spec.Kernel)
		boot(t, spec, true).alive()
	})
}

// vmlinux unpacks the kernel in a bzImage: it lies behind the first magic number of zstd or gzip, whichever unpacks.
func vmlinux(t testing.TB, bzImage string) (path string) {
	t.Helper()
	packed, err := os.ReadFile(bzImage)
	require.NoError(t, err)
	path = filepath.Join(t.TempDir(), "vmlinux")
	for magic, open := range map[string]func(io.Reader) (io.Reader, error){
		"\x28\xb5\x2f\xfd": func(r io.Reader) (io.Reader, error) { return zstd.NewReader(r) },
		"\x1f\x8b\x08\x00": func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
	} {
		_, stream, found := bytes.Cut(packed, []byte(magic))
		if !found {
			continue
		}
		r, err := open(io.MultiReader(strings.NewReader(magic), bytes.NewReader(stream)))
		require.NoError(t, err)
		unpacked, _ := io.ReadAll(r) // ends in an error: more than the stream follows
		if bytes.HasPrefix(unpacked, []byte(elf.ELFMAG)) {
			require.NoError(t, os.WriteFile(path, unpacked, 0o600))
			return path
		}
	}
	require.Fail(t, "no kernel in "+bzImage)
	return ""
}

func TestTheHelloEnclaveCrashes(t *testing.T) { onEachKernel(t, theHelloEnclaveCrashes) }

func theHelloEnclaveCrashes(t *testing.T, kernel setup.Kernel) {
	e := boot(t, helloSpec(t, kernel), true)
	e.alive()
	require.Equal(t, "crashing", e.command("crash"))
	e.ended()
	require.Contains(t, e.console.text(), "init: workload killed by signal 11 (SIGSEGV); powering off")
}

func TestTheHelloEnclavesKernelPanics(t *testing.T) { onEachKernel(t, theHelloEnclavesKernelPanics) }

func theHelloEnclavesKernelPanics(t *testing.T, kernel setup.Kernel) {
	e := boot(t, helloSpec(t, kernel), true)
	e.alive()
	require.Equal(t, "panicking the kernel", e.command("panic"))
	require.Equal(t, qemu.GuestPanic, e.ended().Reason)
	require.Contains(t, e.console.text(), "Kernel panic - not syncing: sysrq triggered crash")
}

func TestTheHelloEnclaveHangs(t *testing.T) { onEachKernel(t, theHelloEnclaveHangs) }

func theHelloEnclaveHangs(t *testing.T, kernel setup.Kernel) {
	e := boot(t, helloSpec(t, kernel), true)
	e.alive()
	require.Equal(t, "hanging", e.command("hang"))
	require.Eventually(t, func() bool { return !e.echoes() }, time.Minute, 10*time.Millisecond) // it stops soon, not at once
	status, err := e.machine.Status(t.Context())
	require.NoError(t, err)
	require.Equal(t, "running", status)
}

// echoes reports whether the workload still answers. The kernel accepts for it either way.
func (e *enclave) echoes() bool {
	c := e.dial(5005)
	_, err := c.Write([]byte("?"))
	require.NoError(e.t, err)
	require.NoError(e.t, c.SetReadDeadline(time.Now().Add(2*time.Second)))
	_, err = c.Read(make([]byte, 1))
	return err == nil
}

func TestWithoutAnybodyToHearItTheEnclaveEnds(t *testing.T) {
	onEachKernel(t, withoutAnybodyToHearItTheEnclaveEnds)
}

func withoutAnybodyToHearItTheEnclaveEnds(t *testing.T, kernel setup.Kernel) {
	e := boot(t, helloSpec(t, kernel), false)
	e.ended()
	require.Contains(t, e.console.text(), "init: error: heartbeat to CID 3 port 9000: connect: connection reset by peer")
}

func TestAWorkloadThatIsNotThereIsNamed(t *testing.T) {
	onEachKernel(t, aWorkloadThatIsNotThereIsNamed)
}

func aWorkloadThatIsNotThereIsNamed(t *testing.T, kernel setup.Kernel) {
	spec := helloSpec(t, kernel)
	spec.Application.Command = []string{"/bin/none"}
	e := boot(t, spec, true)
	e.ended()
	require.Contains(t, e.console.text(), "init: error: start workload /bin/none: no such file or directory")
}

// BenchmarkBoot measures the time from QEMU's start to the heartbeat and to the workload's first line.
func BenchmarkBoot(b *testing.B) {
	kernel, err := setup.FindKernel()
	require.NoError(b, err)
	spec := helloSpec(b, kernel)
	for b.Loop() {
		e := boot(b, spec, true)
		e.alive()
		b.StopTimer()
		require.NoError(b, e.machine.Stop(context.Background()))
		b.StartTimer()
	}
}
