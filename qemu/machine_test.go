package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/digitalocean/go-qemu/qmp"
	"github.com/stretchr/testify/require"
)

func TestStartTellsWhyQEMUDidNot(t *testing.T) {
	for role, want := range map[string]string{
		"talkative-failure": "QEMU ended at once: exit status 1: -M microvm: no such thing",
		"silent-failure":    "QEMU ended at once: exit status 7",
	} {
		t.Run(role, func(t *testing.T) {
			noLeaks(t)
			_, err := Start(t.Context(), fake(t, role))
			require.EqualError(t, err, want)
		})
	}
	t.Run("missing binary", func(t *testing.T) {
		noLeaks(t)
		cfg := fake(t, "")
		cfg.Binary = "/nowhere/qemu"
		_, err := Start(t.Context(), cfg)
		require.ErrorIs(t, err, os.ErrNotExist)
		require.ErrorContains(t, err, "cannot start QEMU: fork/exec /nowhere/qemu: no such file")
	})
	t.Run("not a program", func(t *testing.T) {
		noLeaks(t)
		cfg := fake(t, "")
		cfg.Binary = filepath.Join(t.TempDir(), "qemu")
		require.NoError(t, os.WriteFile(cfg.Binary, []byte("text"), 0o700))
		_, err := Start(t.Context(), cfg)
		require.ErrorContains(t, err, "exec format error")
	})
	t.Run("bad accelerator", func(t *testing.T) {
		cfg := fake(t, "")
		cfg.Accel = "hvf"
		_, err := Start(t.Context(), cfg)
		require.EqualError(t, err, `accelerator "hvf": choose auto, kvm or tcg`)
	})
}

func TestStartIsGivenUpWithItsContext(t *testing.T) {
	t.Run("before", func(t *testing.T) {
		noLeaks(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := Start(ctx, fake(t, "mute"))
		require.ErrorIs(t, err, context.Canceled)
	})
	t.Run("while QEMU is silent", func(t *testing.T) {
		noLeaks(t)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := Start(ctx, fake(t, "mute"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

func TestStop(t *testing.T) {
	t.Run("asks QEMU to quit", func(t *testing.T) {
		noLeaks(t)
		m, err := Start(t.Context(), fake(t, "obedient"))
		require.NoError(t, err)
		status, err := m.Status(t.Context())
		require.NoError(t, err)
		require.Equal(t, "running", status)
		require.NoError(t, m.Stop(t.Context()))
		require.Equal(t, Exit{Reason: Stopped}, m.Wait())
		require.NoError(t, m.Stop(t.Context()), "a second time")
		_, err = m.Status(t.Context())
		require.Error(t, err)
	})
	t.Run("kills a QEMU that does not", func(t *testing.T) {
		noLeaks(t)
		m, err := Start(t.Context(), fake(t, "stubborn"))
		require.NoError(t, err)
		require.NoError(t, m.Stop(t.Context()))
		require.Equal(t, Stopped, m.Wait().Reason)
	})
	t.Run("kills when the context ends", func(t *testing.T) {
		noLeaks(t)
		m, err := Start(t.Context(), fake(t, "stubborn"))
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.NoError(t, m.Stop(ctx))
		require.Equal(t, Stopped, m.Wait().Reason)
	})
	t.Run("kills a QEMU that is halted", func(t *testing.T) {
		noLeaks(t)
		m, err := Start(t.Context(), fake(t, "obedient"))
		require.NoError(t, err)
		require.NoError(t, syscall.Kill(m.PID(), syscall.SIGSTOP))
		require.Eventually(t, func() bool { // until then it may still answer
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.PID()))
			return err == nil && strings.Contains(string(stat), ") T ")
		}, time.Minute, time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err = m.Status(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		_, err = m.Status(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NoError(t, m.Stop(t.Context()))
		require.Equal(t, Stopped, m.Wait().Reason)
	})
	t.Run("from many at once", func(t *testing.T) {
		noLeaks(t)
		m, err := Start(t.Context(), fake(t, "obedient"))
		require.NoError(t, err)
		errs := make(chan error)
		for range 8 {
			go func() { errs <- m.Stop(t.Context()) }()
			go func() { errs <- m.Kill() }()
		}
		for range 16 {
			require.NoError(t, <-errs)
		}
		require.Equal(t, Stopped, m.Wait().Reason)
	})
}

func TestAnEndNobodyAskedFor(t *testing.T) {
	for role, want := range map[string]Exit{
		"exits":             {InternalError, "exit status 3: out of something"},
		"hit-by-a-signal":   {Killed, "SIGUSR1 (user defined signal 1)"},
		"hangs-at-shutdown": {GuestShutdown, ""},
		"leaves-children":   {InternalError, "exit status 0"},
	} {
		t.Run(role, func(t *testing.T) {
			noLeaks(t)
			m, err := Start(t.Context(), fake(t, role))
			require.NoError(t, err)
			require.Equal(t, want, m.Wait())
		})
	}
	t.Run("kill -9", func(t *testing.T) {
		noLeaks(t)
		m, err := Start(t.Context(), fake(t, "obedient"))
		require.NoError(t, err)
		require.NoError(t, syscall.Kill(m.PID(), syscall.SIGKILL))
		require.Equal(t, Exit{Killed, "SIGKILL (killed)"}, m.Wait())
	})
}

func TestQMPThatMisbehaves(t *testing.T) {
	t.Run("a flood of events", func(t *testing.T) {
		noLeaks(t)
		m, err := Start(t.Context(), fake(t, "chatty"))
		require.NoError(t, err)
		_, err = m.Status(t.Context())
		require.NoError(t, err)
		require.NoError(t, m.Stop(t.Context()))
	})
	t.Run("a line without end", func(t *testing.T) {
		noLeaks(t)
		m, err := Start(t.Context(), fake(t, "bad-qmp"))
		require.NoError(t, err)
		require.NoError(t, m.Stop(t.Context()))
		require.Equal(t, Stopped, m.Wait().Reason)
	})
}

// probed starts a machine whose QEMU plays role and returns its accelerator and what was said.
func probed(t *testing.T, cfg Config) (accel Accel, said []string, err error) {
	t.Helper()
	cfg.Say = func(line string) { said = append(said, line) }
	m, err := Start(t.Context(), cfg)
	if err != nil {
		return "", said, err
	}
	accel = m.Accel()
	require.NoError(t, m.Stop(t.Context()))
	return accel, said, nil
}

const finding = "finding out whether KVM works here, which takes 5s at most"

func TestAKVMThatDoesNotWorkIsFoundOutOnceAndNotByTheEnclave(t *testing.T) {
	for role, why := range map[string]string{
		"broken-kvm":   "a test guest did not run: KVM internal error. Suberror: 1, emulation failure",
		"no-kvm":       "a test guest did not run: QEMU ended at once: exit status 1: failed to initialize kvm: Permission denied",
		"crashing-kvm": "a test guest did not run: it crashed before it said a word (guest rebooted)",
	} {
		t.Run(role, func(t *testing.T) {
			noLeaks(t)
			pretendKVM(t)
			cfg := fake(t, role)
			cfg.Accel = Auto
			accel, said, err := probed(t, cfg)
			require.NoError(t, err)
			require.Equal(t, TCG, accel)
			require.Equal(t, []string{finding, "KVM does not work here (" + why + "); using TCG from now on"}, said)

			found, file, known := Probe{Binary: cfg.Binary, Fallback: cfg.Kernel}.Remembered()
			require.True(t, known)
			require.FileExists(t, file)
			require.Equal(t, Outcome{Why: why, When: found.When}, found)
			accel, said, err = probed(t, cfg)
			require.NoError(t, err)
			require.Equal(t, TCG, accel)
			require.Empty(t, said, "said once")

			cfg.Accel = KVM
			_, said, err = probed(t, cfg)
			require.EqualError(t, err, "KVM does not work here: "+why+"; choose auto or tcg")
			require.Equal(t, []string{finding}, said, "who demands KVM has it tried again")
		})
	}
}

func TestAKVMThatWorksIsFoundOutOnce(t *testing.T) {
	noLeaks(t)
	pretendKVM(t)
	cfg := fake(t, "good-kvm")
	cfg.Accel = Auto
	for _, want := range [][]string{{finding}, nil} {
		accel, said, err := probed(t, cfg)
		require.NoError(t, err)
		require.Equal(t, KVM, accel)
		require.Equal(t, want, said)
	}
	cfg.Accel = KVM
	accel, said, err := probed(t, cfg)
	require.NoError(t, err)
	require.Equal(t, KVM, accel)
	require.Empty(t, said)
}

// A host that is too busy to run the test guests shows nothing of KVM: nothing is remembered.
func TestAProbeThatRunsOutOfTimeWithoutAProcessorIsNotRemembered(t *testing.T) {
	noLeaks(t)
	pretendKVM(t)
	cfg := fake(t, "slow-kvm")
	cfg.Accel = Auto
	accel, said, err := probed(t, cfg)
	require.NoError(t, err)
	require.Equal(t, TCG, accel)
	require.Equal(t, []string{finding, "KVM does not work here (a test guest did not run: it was not done within 5s); using TCG this time"}, said)
	_, _, known := Probe{Binary: cfg.Binary, Fallback: cfg.Kernel}.Remembered()
	require.False(t, known)
}

func TestAFaultThatIsNotKVMsIsNotRememberedAsKVMs(t *testing.T) {
	for _, role := range []string{"talkative-failure", "exits"} {
		t.Run(role, func(t *testing.T) {
			noLeaks(t)
			pretendKVM(t)
			cfg := fake(t, role)
			cfg.Accel = Auto
			if m, err := Start(t.Context(), cfg); err == nil {
				require.Equal(t, InternalError, m.Wait().Reason)
			}
			_, _, known := Probe{Binary: cfg.Binary, Fallback: cfg.Kernel}.Remembered()
			require.False(t, known)
		})
	}
}

func TestWithoutKVM(t *testing.T) {
	kvmDevice = filepath.Join(t.TempDir(), "kvm")
	t.Cleanup(func() { kvmDevice = "/dev/kvm" })
	_, err := KVM.Choose(t.Context(), Probe{}, nil)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, "cannot use KVM")
	accel, err := Auto.Choose(t.Context(), Probe{}, nil)
	require.NoError(t, err)
	require.Equal(t, TCG, accel)
}

// What is remembered is of one QEMU, and, where no good kernel is known, of one kernel.
func TestAnOutcomeIsRememberedForWhatItWasFoundOutWith(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	dir := t.TempDir()
	write := func(name, text string) string {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700))
		return filepath.Join(dir, name)
	}
	open := func(path string) *os.File {
		f, err := os.Open(path)
		require.NoError(t, err)
		t.Cleanup(func() { f.Close() })
		return f
	}
	p := Probe{Binary: write("qemu", "1"), Kernel: write("kernel", "good")}
	file, err := p.file(open(p.Kernel))
	require.NoError(t, err)
	file.save(Outcome{Why: "for a reason"})
	found, _, known := p.Remembered()
	require.True(t, known)
	require.Equal(t, "for a reason", found.Why)

	_, _, known = Probe{Binary: p.Binary, Kernel: write("another", "good too")}.Remembered()
	require.True(t, known, "good kernels show the same")
	_, _, known = Probe{Binary: p.Binary, Fallback: open(p.Kernel)}.Remembered()
	require.False(t, known, "another kernel may itself be bad")
	write("qemu", "another")
	_, _, known = p.Remembered()
	require.False(t, known)
	_, _, known = Probe{Binary: "/nowhere", Kernel: p.Kernel}.Remembered()
	require.False(t, known)
}

func TestAGuestThatDoesNotComeUpIsStartedOnTheNextMachineType(t *testing.T) {
	noLeaks(t)
	cfg := fake(t, "acpi-only")
	cfg.Machines = []MachineType{Nitro, ACPI}
	said := make(chan string, 10)
	cfg.Say = func(line string) { said <- line }
	m, err := Start(t.Context(), cfg)
	require.NoError(t, err)
	require.Equal(t, `the guest did not come up on the machine "nitro" (guest rebooted); starting it on "acpi"`, <-said)
	require.Eventually(t, func() bool { return m.Type() == ACPI }, waitLimit, time.Millisecond)
	require.NoError(t, m.Stop(t.Context()))
	require.Equal(t, Exit{Reason: Stopped}, m.Wait())
	require.Empty(t, said)

	t.Run("but not if there is none", func(t *testing.T) {
		cfg.Machines = []MachineType{Nitro}
		m, err := Start(t.Context(), cfg)
		require.NoError(t, err)
		require.Equal(t, Exit{Reason: GuestReset}, m.Wait())
	})
}

func TestParseAccel(t *testing.T) {
	t.Setenv("NESIM_ACCEL", "")
	for in, want := range map[string]Accel{"": Auto, "auto": Auto, "kvm": KVM, "tcg": TCG} {
		a, err := ParseAccel(in)
		require.NoError(t, err)
		require.Equal(t, want, a)
	}
	t.Setenv("NESIM_ACCEL", "tcg")
	a, err := ParseAccel("")
	require.NoError(t, err)
	require.Equal(t, TCG, a)
	t.Setenv("NESIM_ACCEL", "xen")
	_, err = ParseAccel("")
	require.EqualError(t, err, `NESIM_ACCEL "xen": choose auto, kvm or tcg`)
}

// pretendKVM makes auto believe in a /dev/kvm.
func pretendKVM(t *testing.T) {
	t.Helper()
	kvmDevice = os.DevNull
	t.Cleanup(func() { kvmDevice = "/dev/kvm" })
}

func TestQEMUOutlivesTheThreadThatAskedForIt(t *testing.T) {
	noLeaks(t)
	cfg := fake(t, "obedient")
	var m *Machine
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		m, err = Start(t.Context(), cfg)
	}()
	<-done
	require.NoError(t, err)
	for range 100 {
		runtime.GC()
		time.Sleep(time.Millisecond)
	}
	status, err := m.Status(t.Context())
	require.NoError(t, err)
	require.Equal(t, "running", status)
	require.NoError(t, m.Stop(t.Context()))
}

func TestQEMUDiesWithNesim(t *testing.T) {
	p, err := parts()
	require.NoError(t, err)
	noLeaks(t)
	cfg := fake(t, "nesim")
	kernel := filepath.Join(t.TempDir(), "kernel")
	require.NoError(t, os.WriteFile(kernel, p.kernel, 0o600))
	nesim := exec.Command(cfg.Binary)
	nesim.Env = append(os.Environ(), binaryVar+"="+p.binary, kernelVar+"="+kernel)
	nesim.Stderr = os.Stderr
	out, err := nesim.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, nesim.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(pid, 0))
	require.NoError(t, nesim.Process.Kill())
	require.Error(t, nesim.Wait())
	gone(t, pid)
}

// playNesim starts a machine, tells its process id, and waits to be killed.
func playNesim() {
	kernel, err := os.Open(os.Getenv(kernelVar))
	must(err)
	m, err := Start(context.Background(), Config{
		Binary: os.Getenv(binaryVar), CPUs: 1, MemoryBytes: 64 << 20, Kernel: kernel, Accel: TCG,
	})
	must(err)
	_, err = os.Stdout.WriteString(strconv.Itoa(m.PID()) + "\n")
	must(err)
	m.Wait()
}

// Events come from QEMU, which a hostile guest may have taken over.
func FuzzEvents(f *testing.F) {
	f.Add([]byte(`{"event":"SHUTDOWN","data":{"guest":true,"reason":"guest-reset"}}`))
	f.Add([]byte(`{"event":"RESET","data":{"guest":"yes"}}`))
	f.Add([]byte(`{"event":"GUEST_PANICKED","data":null}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var e qmp.Event
		if json.Unmarshal(raw, &e) != nil {
			return
		}
		if reason := cause(e); reason != 0 {
			require.Contains(t, reasonNames, reason)
		}
	})
}
