package qemu

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/eif/inspect"
	"github.com/nesim/nesim/qemu/setup"
)

// These tests boot the real enclave kernel in the real QEMU, under TCG.

const isUp = "guest is up"

// parts are what every guest is made of; made once.
var parts = sync.OnceValues(func() (p struct {
	binary         string
	sandbox        string
	kernel, initrd []byte
	machine        MachineType
}, err error,
) {
	q, err := setup.FindQEMU(context.Background())
	if err != nil {
		return p, err
	}
	k, err := setup.FindDebianKernel()
	if err != nil {
		return p, err
	}
	p.binary, p.sandbox = q.Path, q.Sandbox
	if p.kernel, err = os.ReadFile(k.Image); err != nil {
		return p, err
	}
	p.machine = ACPI
	if takes, err := inspect.TakesCmdlineDevices(context.Background(), bytes.NewReader(p.kernel), int64(len(p.kernel))); err != nil {
		return p, err
	} else if takes {
		p.machine = Nitro
	}
	dir, err := os.MkdirTemp("", "nesim-guest-")
	if err != nil {
		return p, err
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, "init"), "./testdata/guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return p, fmt.Errorf("%w: %s", err, out)
	}
	files := []string{filepath.Join(dir, "init")}
	modules, err := k.LoadOrder("pvpanic_mmio")
	if err != nil {
		return p, err
	}
	p.initrd, err = cpio(append(files, modules...))
	return p, err
})

// cpio packs files into the root of an initramfs (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
func cpio(paths []string) ([]byte, error) {
	var b bytes.Buffer
	pad := func() { b.Write(make([]byte, -b.Len()&3)) }
	for i, path := range append(paths, "TRAILER!!!") {
		var data []byte
		if i < len(paths) {
			var err error
			if data, err = os.ReadFile(path); err != nil {
				return nil, err
			}
		}
		name := filepath.Base(path)
		fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
			i, unix.S_IFREG|0o755, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0, name)
		pad()
		b.Write(data)
		pad()
	}
	return b.Bytes(), nil
}

// guest is a Config for a guest whose init does what its command line says.
func guest(t *testing.T, cmdline string) (Config, *screen) {
	t.Helper()
	p, err := parts()
	require.NoError(t, err)
	s := &screen{}
	return Config{
		Name: t.Name(), Binary: p.binary, Sandbox: p.sandbox, CPUs: 1, MemoryBytes: 128 << 20,
		Kernel: memfd(t, p.kernel), Initrd: memfd(t, p.initrd),
		Cmdline: "console=ttyS0 quiet " + cmdline, Console: s, Accel: TCG,
		Machines: []MachineType{p.machine},
	}, s
}

// memfd holds content in a sealed file without a name.
func memfd(t *testing.T, content []byte) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("nesim-test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	require.NoError(t, err)
	f := os.NewFile(uintptr(fd), "memfd")
	t.Cleanup(func() { f.Close() })
	_, err = f.Write(content)
	require.NoError(t, err)
	_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE|unix.F_SEAL_SEAL)
	require.NoError(t, err)
	return f
}

// boot starts a guest and ends it with the test.
func boot(t *testing.T, cfg Config) *Machine {
	t.Helper()
	m, err := Start(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Kill()) })
	return m
}

// shows waits until the console shows text.
func shows(t *testing.T, s *screen, text string) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(s.String(), text) }, waitLimit, 5*time.Millisecond,
		"the console never showed %q", text)
}

func TestHowAGuestEnds(t *testing.T) {
	for _, test := range []struct {
		what, cmdline string
		want          Exit
	}{
		{"power off", "DO=poweroff", Exit{GuestShutdown, ""}},
		{"halt", "DO=halt", Exit{GuestShutdown, ""}},
		{"reboot", "DO=reboot", Exit{GuestReset, ""}},
		{"reboot through the keyboard controller", "reboot=k DO=reboot", Exit{GuestReset, ""}},
		{"reboot through the BIOS", "reboot=b DO=reboot", Exit{GuestReset, ""}},
		{"triple fault", "reboot=t DO=reboot", Exit{GuestReset, ""}},
		{"panic and reboot", "reboot=k panic=1 DO=panic", Exit{GuestPanic, "sysrq triggered crash"}},
		{"panic and spin", "DO=panic", Exit{GuestPanic, "sysrq triggered crash"}},
		{"panic told by pvpanic", "panic=1000 MODULES=pvpanic,pvpanic_mmio DO=panic", Exit{GuestPanic, "sysrq triggered crash"}},
		{"init exits", "panic=-1 DO=exit", Exit{GuestPanic, "Attempted to kill init! exitcode=0x00000300"}},
	} {
		t.Run(test.what, func(t *testing.T) {
			noLeaks(t)
			cfg, console := guest(t, test.cmdline)
			exit := boot(t, cfg).Wait()
			require.Equal(t, test.want, exit, "console: %s", console)
		})
	}
}

// A guest with exactly 2048 MiB hung once, its ramdisk over the ACPI tables. The layout changes at that size, where a ramdisk's
// highest address is, and above 3 GiB, from where on the rest of the memory lies above 4 GiB.
func TestAGuestBootsWithAnyMemorySize(t *testing.T) {
	p, err := parts()
	require.NoError(t, err)
	large, err := cpio([]string{zeroes(t, 230<<20)})
	require.NoError(t, err)
	for _, test := range []struct {
		mib     uint64
		ramdisk []byte
	}{
		{1024, p.initrd},
		{2048, p.initrd},
		{2048, append(large, p.initrd...)}, // Linux takes archives one behind the other
		{3072, p.initrd},
		{4098, p.initrd},
	} {
		t.Run(fmt.Sprintf("%d MiB, ramdisk of %d MiB", test.mib, len(test.ramdisk)>>20), func(t *testing.T) {
			cfg, console := guest(t, "DO=cmdline")
			cfg.MemoryBytes, cfg.Initrd = test.mib<<20, memfd(t, test.ramdisk)
			require.Equal(t, Exit{Reason: GuestShutdown}, boot(t, cfg).Wait(), "console: %s", console)
			_, rest, found := strings.Cut(console.String(), "MemTotal:")
			require.True(t, found)
			var kib uint64
			_, err := fmt.Sscan(rest, &kib)
			require.NoError(t, err)
			require.Greater(t, kib>>10, test.mib*9/10, "the guest has all of its memory")
		})
	}
}

// zeroes makes a file of so many zeroes, whose blocks take no room.
func zeroes(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "zeroes")
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, f.Truncate(size))
	return path
}

func TestTheGuestGetsWhatTheConfigSays(t *testing.T) {
	noLeaks(t)
	cfg, console := guest(t, "list=a,b,,c DO=cmdline")
	cfg.CPUs = 2
	cfg.Name = "a,b=c"
	m := boot(t, cfg)
	require.Equal(t, TCG, m.Accel())
	require.Equal(t, Exit{Reason: GuestShutdown}, m.Wait())
	text := console.String()
	require.Regexp(t, "cmdline=<console=ttyS0 quiet list=a,b,,c DO=cmdline tsc_early_khz=[0-9]+ tsc=reliable .*>", text)
	require.Equal(t, 2, strings.Count(text, "processor\t:"))
}

func TestQEMURunsInItsSandbox(t *testing.T) {
	cfg, s := guest(t, "DO=hang")
	if cfg.Sandbox == "" {
		t.Skip("this QEMU was built without seccomp")
	}
	m := boot(t, cfg)
	shows(t, s, isUp)
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", m.PID()))
	require.NoError(t, err)
	require.NotEmpty(t, threads)
	for _, file := range threads {
		status, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Regexp(t, `(?m)^Seccomp:\s+2$`, string(status), "SECCOMP_MODE_FILTER, in each thread")
	}
}

func TestAutoBootsWhateverTheHost(t *testing.T) {
	noLeaks(t)
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	cfg, console := guest(t, "DO=hang")
	cfg.Accel = Auto
	cfg.Say = func(line string) { t.Log(line) }
	m := boot(t, cfg)
	shows(t, console, isUp)
	m.Booted()
	t.Log("booted under", m.Accel())
	require.NoError(t, m.Stop(t.Context()))
	require.Equal(t, Exit{Reason: Stopped}, m.Wait())
}

func TestTheConsoleIsCompleteAtTheEnd(t *testing.T) {
	noLeaks(t)
	cfg, console := guest(t, "DO=tail")
	require.Equal(t, GuestShutdown, boot(t, cfg).Wait().Reason)
	for i := 1; i <= 2000; i++ {
		require.Contains(t, console.String(), fmt.Sprintf("tail line %d\r\n", i))
	}
}

func TestAFloodNobodyReads(t *testing.T) {
	noLeaks(t)
	cfg, console := guest(t, "DO=flood")
	console.hold = make(chan struct{})
	m := boot(t, cfg)
	relay := m.current().console
	require.Eventually(t, func() bool {
		relay.mu.Lock()
		defer relay.mu.Unlock()
		return relay.dropped > 0
	}, waitLimit, 5*time.Millisecond)
	status, err := m.Status(t.Context())
	require.NoError(t, err)
	require.Equal(t, "running", status)
	go func() {
		<-m.current().proc.Done()
		close(console.hold)
	}()
	require.NoError(t, m.Stop(t.Context()))
	require.Equal(t, Exit{Reason: Stopped}, m.Wait())
	require.Contains(t, console.String(), "bytes of console text dropped]")
}

func TestAGuestThatHangs(t *testing.T) {
	t.Run("is stopped", func(t *testing.T) {
		noLeaks(t)
		cfg, console := guest(t, "DO=hang")
		m := boot(t, cfg)
		shows(t, console, isUp)
		require.NoError(t, m.Stop(t.Context()))
		require.Equal(t, Exit{Reason: Stopped}, m.Wait())
	})
	for _, test := range []struct {
		what   string
		signal syscall.Signal
		want   ExitReason
		detail string
	}{
		{"is killed", syscall.SIGKILL, Killed, "SIGKILL (killed)"},
		{"is told to end from outside", syscall.SIGTERM, Killed, "terminating on signal 15"},
	} {
		t.Run(test.what, func(t *testing.T) {
			noLeaks(t)
			cfg, _ := guest(t, "DO=hang")
			m := boot(t, cfg)
			require.NoError(t, syscall.Kill(m.PID(), test.signal))
			exit := m.Wait()
			require.Equal(t, test.want, exit.Reason)
			require.Contains(t, exit.Detail, test.detail)
		})
	}
	t.Run("is stopped while its QEMU is halted", func(t *testing.T) {
		noLeaks(t)
		cfg, _ := guest(t, "DO=hang")
		m := boot(t, cfg)
		require.NoError(t, syscall.Kill(m.PID(), syscall.SIGSTOP))
		require.NoError(t, m.Stop(t.Context()))
		require.Equal(t, Exit{Reason: Stopped}, m.Wait())
	})
}

func TestFourAtOnceAreStrangers(t *testing.T) {
	noLeaks(t)
	var machines [4]*Machine
	var consoles [4]*screen
	for i := range machines {
		var cfg Config
		cfg, consoles[i] = guest(t, "DO=hang")
		machines[i] = boot(t, cfg)
	}
	for _, console := range consoles {
		shows(t, console, isUp)
	}
	require.NoError(t, syscall.Kill(machines[0].PID(), syscall.SIGKILL))
	require.Equal(t, Killed, machines[0].Wait().Reason)
	for _, m := range machines[1:] {
		status, err := m.Status(t.Context())
		require.NoError(t, err)
		require.Equal(t, "running", status)
	}
	for _, m := range machines[1:] {
		require.NoError(t, m.Stop(t.Context()))
		require.Equal(t, Exit{Reason: Stopped}, m.Wait())
	}
}

func TestQEMUSaysWhyItDoesNotStart(t *testing.T) {
	t.Run("no kernel", func(t *testing.T) {
		noLeaks(t)
		cfg, _ := guest(t, "")
		cfg.Kernel = memfd(t, []byte("not a kernel"))
		_, err := Start(t.Context(), cfg)
		require.ErrorContains(t, err, "QEMU ended at once: exit status 1: ")
		require.ErrorContains(t, err, "kernel")
	})
	t.Run("nobody listens", func(t *testing.T) {
		noLeaks(t)
		cfg, _ := guest(t, "")
		cfg.VsockSocket = filepath.Join(t.TempDir(), "a,b")
		_, err := Start(t.Context(), cfg)
		require.ErrorContains(t, err, "QEMU ended at once: exit status 1: ")
		require.ErrorContains(t, err, "No such file or directory")
		t.Log(err)
	})
	t.Run("no vhost-vsock", func(t *testing.T) {
		if _, err := os.Stat("/dev/vhost-vsock"); err == nil {
			return // then it starts
		}
		noLeaks(t)
		cfg, _ := guest(t, "")
		cfg.VhostVsockCID = 16
		_, err := Start(t.Context(), cfg)
		require.ErrorContains(t, err, "vhost-vsock")
		t.Log(err)
	})
	t.Run("a back end that never answers", func(t *testing.T) {
		noLeaks(t)
		cfg, _ := guest(t, "")
		cfg.NSMSocket = filepath.Join(t.TempDir(), "nsm")
		l, err := net.Listen("unix", cfg.NSMSocket)
		require.NoError(t, err)
		defer l.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = Start(ctx, cfg)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}
