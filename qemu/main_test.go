package qemu

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// binaryVar and kernelVar tell the nesim to be killed what to start.
const (
	binaryVar = "NESIM_TEST_BINARY"
	kernelVar = "NESIM_TEST_KERNEL"
)

// waitLimit is the limit of every wait in these tests; none should come near it.
const waitLimit = 2 * time.Minute

// roleVar makes the test program play another part: a QEMU of some behaviour, or a nesim to be killed.
const roleVar = "NESIM_TEST_ROLE"

func TestMain(m *testing.M) {
	switch role := os.Getenv(roleVar); role {
	case "":
		os.Exit(m.Run())
	case "nesim":
		playNesim()
	default:
		playQEMU(role)
	}
}

// playQEMU is a QEMU that does one thing as the real one would.
func playQEMU(role string) {
	kvm, nitro := slices.Contains(os.Args, "kvm"), strings.Contains(strings.Join(os.Args, " "), "acpi=off")
	switch {
	case role == "talkative-failure":
		fmt.Fprintln(os.Stderr, "qemu-system-x86_64: warning: nothing\nqemu-system-x86_64: -M microvm: no such thing")
		os.Exit(1)
	case role == "silent-failure":
		os.Exit(7)
	case role == "no-kvm" && kvm:
		fmt.Fprintln(os.Stderr, "qemu-system-x86_64: failed to initialize kvm: Permission denied")
		os.Exit(1)
	case role == "mute":
		time.Sleep(time.Hour)
	}
	l, err := net.FileListener(os.NewFile(qmpFD, "qmp"))
	must(err)
	c, err := l.Accept()
	must(err)
	say := func(format string, a ...any) { fmt.Fprintf(c, format+"\n", a...) }
	say(`{"QMP": {"version": {"qemu": {"major": 11, "minor": 1, "micro": 2}, "package": ""}, "capabilities": ["oob"]}}`)
	status := "running"
	in := bufio.NewScanner(c)
	for in.Scan() {
		var command qmpCommand
		must(json.Unmarshal(in.Bytes(), &command))
		switch command.Execute {
		case "query-status":
			say(`{"return": {"status": %q}}`, status)
		case "quit":
			if role == "stubborn" {
				continue
			}
			say(`{"return": {}}`)
			say(`{"event": "SHUTDOWN", "data": {"guest": false, "reason": "host-qmp-quit"}}`)
			os.Exit(0)
		case "cont":
			say(`{"return": {}}`)
			switch {
			case role == "broken-kvm" && kvm:
				fmt.Fprintln(os.Stderr, "KVM internal error. Suberror: 1\nextra data[0]: 0x1\nemulation failure\nRAX=0\nCode=00")
				status = "internal-error"
				say(`{"event": "STOP"}`)
			case role == "slow-kvm" && kvm:
				time.Sleep(time.Hour)
			case role == "good-kvm" && slices.Contains(os.Args, "guest=nesim-kvm-probe,debug-threads=on"):
				fmt.Println(kvmGuestText + " Linux version 6.12")
				say(`{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}`)
				os.Exit(0)
			case role == "crashing-kvm" && kvm, role == "acpi-only" && nitro:
				say(`{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}`)
				os.Exit(0)
			case role == "chatty":
				for range 20000 {
					say(`{"event": "RTC_CHANGE", "data": {"offset": 1}}`)
				}
			case role == "hangs-at-shutdown":
				say(`{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}`)
				time.Sleep(time.Hour)
			case role == "bad-qmp":
				say("%s", strings.Repeat("{", 1<<20))
			case role == "exits":
				fmt.Fprintln(os.Stderr, "qemu-system-x86_64: out of something")
				os.Exit(3)
			case role == "hit-by-a-signal": // one that Go would not let through
				must(syscall.Exec("/bin/sh", []string{"sh", "-c", "kill -USR1 $$"}, nil))
			case role == "leaves-children":
				must(exec.Command("sleep", "1234567").Start())
				os.Exit(0)
			}
		default:
			say(`{"return": {}}`)
		}
	}
	time.Sleep(time.Hour)
}

type qmpCommand struct {
	Execute string `json:"execute"`
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(99)
	}
}

// fake is a Config for a QEMU that plays role.
func fake(t *testing.T, role string) Config {
	t.Helper()
	t.Setenv(roleVar, role)
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	self, err := os.Executable()
	require.NoError(t, err)
	null, err := os.Open(os.DevNull)
	require.NoError(t, err)
	t.Cleanup(func() { null.Close() })
	return Config{Name: role, Binary: self, CPUs: 1, MemoryBytes: 64 << 20, Kernel: null, Accel: TCG}
}

// noLeaks fails the test when, after it, descriptors, goroutines, child processes or folders are left.
func noLeaks(t *testing.T) {
	t.Helper()
	t.Setenv("TMPDIR", t.TempDir())
	fds, routines := descriptors(t), runtime.NumGoroutine()
	t.Cleanup(func() {
		// Not Eventually, which runs goroutines of its own.
		for limit := time.Now().Add(waitLimit); runtime.NumGoroutine() > routines; time.Sleep(time.Millisecond) {
			if time.Now().After(limit) {
				stacks := make([]byte, 1<<16)
				t.Fatalf("goroutines are left:\n%s", stacks[:runtime.Stack(stacks, true)])
			}
		}
		require.LessOrEqual(t, len(descriptors(t)), len(fds), "descriptors are left: %v, before %v", descriptors(t), fds)
		require.Empty(t, children(t), "processes are left")
		left, err := os.ReadDir(os.Getenv("TMPDIR"))
		require.NoError(t, err)
		require.Empty(t, left, "files are left")
	})
}

func descriptors(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	var open []string
	for _, e := range entries {
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || to == "anon_inode:[eventpoll]" || to == "anon_inode:[eventfd]" { // ReadDir's own, Go's poller
			continue
		}
		open = append(open, e.Name()+" "+to)
	}
	return open
}

// children are the processes whose parent this one is.
func children(t *testing.T) []string {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(t, err)
	var found []string
	for _, stat := range stats {
		text, err := os.ReadFile(stat)
		if err != nil {
			continue // it has just ended
		}
		if f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:])); len(f) > 1 && f[1] == fmt.Sprint(os.Getpid()) {
			found = append(found, string(text))
		}
	}
	return found
}

// gone waits until the process pid is no more, or only a zombie of another parent's.
func gone(t *testing.T, pid int) {
	t.Helper()
	require.Eventually(t, func() bool {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(text), ") Z ")
	}, waitLimit, 10*time.Millisecond, "process %d lives on", pid)
}
