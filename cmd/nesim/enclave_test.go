package main

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/eif"
)

func TestAnEnclaveIsRunTalkedToAndTerminated(t *testing.T) {
	u := newUser(t)
	require.Empty(t, u.enclaves(), "there is no daemon yet, and so no enclave")

	info := u.runHello("--enclave-cid", "16")
	require.Equal(t, "hello", info.Name)
	require.EqualValues(t, 16, info.CID)
	require.Equal(t, 2, info.CPUCount)
	require.Len(t, info.CPUIDs, 2)
	require.NotContains(t, info.CPUIDs, uint32(0))
	require.EqualValues(t, 256, info.MemoryMiB)

	t.Run("described with the image's measurements", func(t *testing.T) {
		list := u.enclaves()
		require.Len(t, list, 1)
		require.Equal(t, info, list[0].RunInfo)
		require.Equal(t, "RUNNING", list[0].State)
		require.Equal(t, "DEBUG_MODE", list[0].Flags)
		var image eif.Description
		require.NoError(t, json.Unmarshal([]byte(u.must("describe-eif", "--eif-path", u.hello())), &image))
		require.True(t, image.CheckCRC)
		require.NotZero(t, image.Measurements.PCR0)
		require.Equal(t, image.Measurements, list[0].Measurements)
	})
	t.Run("its console is read from the start", func(t *testing.T) {
		text := u.must("console", "--enclave-id", info.ID, "--disconnect-timeout", "3")
		require.Contains(t, text, "heartbeat answered by CID 3; starting /hello")
		require.Contains(t, text, "hello from the enclave, up 1 s")
	})
	t.Run("its vsock echoes", func(t *testing.T) {
		sent := strings.Repeat("is anybody there? ", 100_000)
		got, _, err := u.run(sent, "vsock", "dial", "--wait", "16", "5005")
		require.NoError(t, err)
		require.Equal(t, sent, got)
	})
	t.Run("many at once", func(t *testing.T) {
		var all sync.WaitGroup
		for n := range 20 {
			all.Go(func() {
				sent := strings.Repeat(strconv.Itoa(n)+" ", 10_000)
				got, _, err := u.run(sent, "vsock", "dial", "16", "5005")
				if err != nil || got != sent {
					t.Errorf("connection %d: %d bytes came back of %d, %v", n, len(got), len(sent), err)
				}
			})
		}
		all.Wait()
	})
	t.Run("a port where nobody listens refuses", func(t *testing.T) {
		require.Contains(t, u.refused("vsock", "dial", "16", "4242"), "reset") // as Linux tells it
		require.Equal(t, "nesim: no enclave has CID 17: nesim describe-enclaves lists the running ones", u.refused("vsock", "dial", "17", "5005"))
	})

	var done terminated
	require.NoError(t, json.Unmarshal([]byte(u.must("terminate-enclave", "--enclave-id", info.ID)), &done))
	require.Equal(t, terminated{Name: "hello", ID: info.ID, Terminated: true}, done)
	require.Empty(t, u.enclaves())
	require.Equal(t, "asked", u.wait("hello").Reason)
}

func TestHowAnEnclaveEndsIsTold(t *testing.T) {
	u := newUser(t)
	for name, test := range map[string]struct {
		end    func(cid string)
		reason string
	}{
		"exit":  {func(cid string) { require.Contains(t, u.ask(cid, "exit 3"), "3") }, "guest exit"},
		"panic": {func(cid string) { u.ask(cid, "panic") }, "guest panic"},
		"kill": {func(string) {
			for _, pid := range u.processes("qemu") {
				require.NoError(t, exec.Command("kill", "-9", pid).Run())
			}
		}, "VM killed"},
	} {
		info := u.runHello("--enclave-name", name)
		test.end(strconv.FormatUint(info.CID, 10))
		ending := u.wait(name)
		require.Equal(t, test.reason, ending.Reason, "%s: %s", name, ending.Detail)
		require.False(t, ending.Asked)
		require.Empty(t, u.enclaves())
	}
}

func TestAHungEnclaveIsTerminated(t *testing.T) {
	u := newUser(t)
	u.runHello("--enclave-cid", "16")
	u.ask("16", "hang")
	u.must("terminate-enclave", "--all")
	require.Empty(t, u.enclaves())
}

func TestTwoEnclavesAtOnceDoNotMeet(t *testing.T) {
	u := newUser(t)
	var both sync.WaitGroup
	for _, cid := range []string{"16", "17"} {
		both.Go(func() { u.runHello("--enclave-cid", cid, "--enclave-name", "cid"+cid) })
	}
	both.Wait()
	require.Len(t, u.enclaves(), 2)
	require.Contains(t, u.refused("run-enclave", "--eif-path", u.hello(), "--cpu-count", "2", "--memory", "256", "--enclave-cid", "17"), "CID 17")
	u.ask("16", "panic")
	u.wait("cid16")
	list := u.enclaves()
	require.Len(t, list, 1)
	require.Equal(t, "cid17", list[0].Name)
	got, _, err := u.run("still here", "vsock", "dial", "--wait", "17", "5005")
	require.NoError(t, err)
	require.Equal(t, "still here", got)
}

func TestAnInterruptedRunLeavesNoEnclave(t *testing.T) {
	u := newUser(t)
	cmd := u.command(context.Background(), "run-enclave", "--eif-path", u.hello(), "--cpu-count", "2", "--memory", "256")
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool { return len(u.processes("qemu")) > 0 }, limit, 10*time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	err := cmd.Wait()
	exit := (*exec.ExitError)(nil)
	require.ErrorAs(t, err, &exit)
	require.Equal(t, 130, exit.ExitCode())
	require.Eventually(t, func() bool { return len(u.processes("qemu")) == 0 }, limit, 10*time.Millisecond)
	require.Empty(t, u.enclaves())
}

func TestADaemonThatIsKilledTakesItsMachinesAlong(t *testing.T) {
	u := newUser(t)
	u.runHello()
	daemon := u.daemonPID()
	require.NoError(t, syscall.Kill(daemon, syscall.SIGKILL))
	require.Eventually(t, func() bool { return len(u.processes("qemu")) == 0 }, limit, 10*time.Millisecond)
	require.Empty(t, u.enclaves())
	u.runHello()
	require.Len(t, u.enclaves(), 1)
}

// daemonPID reads which process the running enclaves' parent is.
func (u *user) daemonPID() int {
	list := u.enclaves()
	require.NotEmpty(u, list)
	return list[0].ProcessID
}

func TestBadInputIsRefusedInOneLine(t *testing.T) {
	u := newUser(t)
	good, err := os.ReadFile(u.hello())
	require.NoError(t, err)
	file := func(name string, content []byte) string {
		path := filepath.Join(u.dir, name)
		require.NoError(t, os.WriteFile(path, content, 0o600))
		return path
	}
	flipped := append([]byte(nil), good...)
	flipped[len(flipped)/2] ^= 1
	unbootable, err := os.Create(filepath.Join(u.dir, "unbootable.eif"))
	require.NoError(t, err)
	defer unbootable.Close()
	_, err = eif.Build(t.Context(), unbootable, eif.BuildSpec{
		Kernel: strings.NewReader("no kernel"), Cmdline: "quiet", Ramdisks: []io.Reader{strings.NewReader("no ramdisk")},
	})
	require.NoError(t, err)
	fifo := filepath.Join(u.dir, "fifo")
	require.NoError(t, syscall.Mkfifo(fifo, 0o600))

	for _, test := range []struct {
		why   string
		args  []string
		tells string
		code  string
	}{
		{"missing file", []string{"--eif-path", filepath.Join(u.dir, "none.eif")}, "no such file", "E19"},
		{"folder", []string{"--eif-path", u.dir}, "not a file", "E19"},
		{"FIFO", []string{"--eif-path", fifo}, "not a file", "E19"},
		{"empty file", []string{"--eif-path", file("empty", nil)}, "empty", "E35"},
		{"not an EIF", []string{"--eif-path", file("text", []byte(strings.Repeat("text ", 1000)))}, "text", "E35"},
		{"truncated", []string{"--eif-path", file("short.eif", good[:len(good)/2])}, "short.eif", "E35"},
		{"damaged", []string{"--eif-path", file("flipped.eif", flipped)}, "CRC", "E35"},
		{"no kernel in it", []string{"--eif-path", unbootable.Name()}, "the kernel is neither", "E36"},
		{"memory too small for the image", []string{"--memory", "16"}, "does not fit", "E26"},
		{"no memory", []string{"--memory", "0"}, "memory", "E26"},
		{"memory without end", []string{"--memory", "16777215T"}, "this host has", "E27"},
		{"more memory than the host has", []string{"--memory", "1T"}, "1048576 MiB of memory requested, and this host has", "E27"},
		{"memory in an unknown unit", []string{"--memory", "256_mb"}, "256_mb", "E03"},
		{"memory too small for an enclave", []string{"--eif-path", u.image("two.eif"), "--memory", "60"}, "64 MiB", "E29"},
		{"half a core", []string{"--cpu-count", "1"}, "core", "E29"},
		{"more CPUs than the pool has", []string{"--cpu-count", "100"}, "pool", "E22"},
		{"no CPU", []string{"--cpu-count", "0"}, "at least one CPU core", "E29"},
		{"CPUs that are no number", []string{"--cpu-count", "1z"}, "1z", "E03"},
		{"the parent's CID", []string{"--enclave-cid", "3"}, "CID", "E03"},
		{"a CID of more than 32 bits", []string{"--enclave-cid", "4294967296"}, "CID", "E03"},
		{"unknown flag", []string{"--memroy", "1"}, "memroy", ""},
	} {
		// The later of two flags of a name counts.
		args := append([]string{"run-enclave", "--eif-path", u.hello(), "--cpu-count", "2", "--memory", "256"}, test.args...)
		told := u.refused(args...)
		require.Contains(t, told, test.tells, test.why)
		if test.code != "" {
			require.Contains(t, told, "["+test.code+"]", test.why)
		}
		require.Empty(t, u.enclaves(), test.why)
		require.Empty(t, u.processes("qemu"), test.why)
	}
	require.Contains(t, u.refused("describe-eif", "--eif-path", file("flipped.eif", flipped)), "CRC")
	require.Contains(t, u.refused("console", "--enclave-name", "nobody"), "[E58]")
	require.Contains(t, u.refused("terminate-enclave", "--enclave-id", "i-1-enc2"), "[E11]")
}

func TestTheSameFolderGivesTheSameImage(t *testing.T) {
	u := newUser(t)
	dir := t.TempDir()
	rootfs := helloFolder(t, dir)
	again := filepath.Join(dir, "again.eif")
	require.NoError(t, os.Chtimes(filepath.Join(rootfs, "hello"), time.Unix(1, 0), time.Unix(1, 0)))
	u.must("build-enclave", "--rootfs", rootfs, "--output-file", again)
	want, err := os.ReadFile(u.hello())
	require.NoError(t, err)
	got, err := os.ReadFile(again)
	require.NoError(t, err)
	require.True(t, string(want) == string(got), "two builds differ")
}
