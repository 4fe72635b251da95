package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/sim/daemon"
)

// serve starts the user's daemon with flags of its own, which lasts until the user shuts it down.
func (u *user) serve(flags ...string) {
	u.Helper()
	cmd := u.command(context.Background(), append([]string{"serve"}, flags...)...)
	require.NoError(u, cmd.Start())
	go func() { _ = cmd.Wait() }()
	require.Eventually(u, func() bool {
		_, _, err := u.run("", "vsock", "dial", "3", "1")
		return err != nil && !strings.Contains(u.refused("console", "--enclave-name", "none"), "no nesim daemon")
	}, limit, 10*time.Millisecond)
}

func TestOfManyAtOnceThoseWithoutASlotAreToldSo(t *testing.T) {
	u := newUser(t)
	u.serve("--max-enclaves", "2")
	eif := u.hello()
	var mu sync.Mutex
	var ran int
	var refusals []string
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			_, stderr, err := u.run("", "run-enclave", "--eif-path", eif, "--cpu-count", "2", "--memory", "256")
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				ran++
				return
			}
			lines := strings.Split(strings.TrimSpace(stderr), "\n")
			refusals = append(refusals, lines[len(lines)-1])
		})
	}
	all.Wait()
	require.Equal(t, 2, ran, refusals)
	require.Len(t, refusals, 8)
	for _, told := range refusals {
		require.Contains(t, told, "nesim: [E29] make an enclave: ")
		require.Contains(t, told, "slot")
	}
	list := u.enclaves()
	require.Len(t, list, 2)
	require.NotEqual(t, list[0].Name, list[1].Name)
	require.Len(t, u.processes("qemu-system"), 2)
	u.must("terminate-enclave", "--all")
	require.Empty(t, u.enclaves())
	u.runHello() // the slots are free again
}

func TestAnEnclaveIsTerminatedDuringItsBoot(t *testing.T) {
	u := newUser(t)
	cmd := u.command(context.Background(), "run-enclave", "--eif-path", u.hello(), "--cpu-count", "2", "--memory", "256")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool { return len(u.processes("qemu")) > 0 }, limit, 10*time.Millisecond)
	require.Empty(t, u.enclaves(), "it does not run yet")
	u.must("terminate-enclave", "--enclave-name", "hello")
	exit := (*exec.ExitError)(nil)
	require.ErrorAs(t, cmd.Wait(), &exit)
	require.Equal(t, 36, exit.ExitCode(), stderr.String())
	require.Contains(t, stderr.String(), "nesim: [E36] the enclave did not boot: it was terminated")
	require.Empty(t, u.processes("qemu"))
	require.Equal(t, "asked", u.wait("hello").Reason)
}

func TestADaemonKilledDuringABootIsToldAndLeavesNothing(t *testing.T) {
	u := newUser(t)
	cmd := u.command(context.Background(), "run-enclave", "--eif-path", u.hello(), "--cpu-count", "2", "--memory", "256")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool { return len(u.processes("qemu")) > 0 }, limit, 10*time.Millisecond)
	about, err := daemon.NewClient(u.dir).About(t.Context())
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(about.PID, syscall.SIGKILL))
	exit := (*exec.ExitError)(nil)
	require.ErrorAs(t, cmd.Wait(), &exit)
	require.Equal(t, 39, exit.ExitCode())
	require.Contains(t, stderr.String(), "nesim: [E39] the daemon ended before the enclave ran")
	require.Eventually(t, func() bool { return len(u.processes("qemu")) == 0 }, limit, 10*time.Millisecond)
	require.Empty(t, u.enclaves())
	// The next daemon puts the folder in order, for whatever it was started.
	require.Contains(t, u.refused("run-enclave", "--eif-path", "none.eif", "--cpu-count", "2", "--memory", "256"), "[E19]")
}

func TestCtrlCLeavesNothingInAnyPhase(t *testing.T) {
	u := newUser(t)
	eif := u.hello()
	args := []string{"run-enclave", "--eif-path", eif, "--cpu-count", "2", "--memory", "256"}
	interrupted := func(cmd *exec.Cmd) {
		t.Helper()
		require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
		err := cmd.Wait()
		exit := (*exec.ExitError)(nil)
		require.True(t, errors.As(err, &exit), "%v", err)
		require.Equal(t, 130, exit.ExitCode())
	}
	nothing := func() {
		t.Helper()
		require.Eventually(t, func() bool { return len(u.processes("qemu")) == 0 }, limit, 10*time.Millisecond)
		require.Empty(t, u.enclaves())
	}

	// While the daemon starts: its log is there before it answers.
	cmd := u.command(context.Background(), args...)
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool { return exists(u.dir + "/nesim.log") }, limit, time.Millisecond)
	interrupted(cmd)
	nothing()

	// While the image is loaded.
	cmd = u.command(context.Background(), args...)
	stderr, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(stderr).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "Start allocating memory...\n", line)
	interrupted(cmd)
	nothing()

	// While its console is shown: that is left, and the enclave stays, as with nitro-cli.
	cmd = u.command(context.Background(), append(args, "--attach-console")...)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	for console := bufio.NewReader(stdout); !strings.Contains(line, "hello from the enclave"); {
		line, err = console.ReadString('\n')
		require.NoError(t, err)
	}
	interrupted(cmd)
	list := u.enclaves()
	require.Len(t, list, 1)
	require.Equal(t, "DEBUG_MODE", list[0].Flags)
	u.must("terminate-enclave", "--enclave-id", list[0].ID)
	nothing()
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func TestAConfigurationRunsAnEnclave(t *testing.T) {
	u := newUser(t)
	path := u.file("config.json", []byte(`{"eif_path":"`+u.hello()+`","memory_mib":128,"cpu_ids":[4,5],"enclave_cid":21,"enclave_name":"configured","debug_mode":true}`))
	u.must("run-enclave", "--config", path)
	list := u.enclaves()
	require.Len(t, list, 1)
	require.Equal(t, "configured", list[0].Name)
	require.EqualValues(t, 21, list[0].CID)
	require.Equal(t, []uint32{4, 5}, list[0].CPUIDs)
	require.EqualValues(t, 128, list[0].MemoryMiB)
	require.Equal(t, "DEBUG_MODE", list[0].Flags)

	plain := u.must("describe-enclaves")
	require.NotContains(t, plain, "Metadata")
	full := u.must("describe-enclaves", "--metadata")
	require.Regexp(t, `(?s)"Measurements": .*"ImageName": .*"ImageVersion": .*"Metadata": .*"BuildTool": "nesim"`, full)
	require.Contains(t, u.must("__complete", "console", "--enclave-name", ""), "configured\n")
	require.Equal(t, "configured\n"+list[0].ID+"\n:4\n", u.must("__complete", "console", ""))
	require.Equal(t, "21\tconfigured\n3\tthe parent\n:4\n", u.must("__complete", "vsock", "dial", ""))
	require.Contains(t, u.onTerminal([]string{"NO_COLOR=1"}, "describe-enclaves"), "configured  "+list[0].ID+"  21   2     128 MiB  RUNNING  DEBUG_MODE")
	require.Contains(t, u.refused("terminate-enclave", "--enclave-name", "other"), "[E58]")
	require.Contains(t, u.refused("terminate-enclave", "other"), "[E58]")
	done, told, err := u.run("", "terminate-enclave", "--all", "--quiet")
	require.NoError(t, err)
	require.Empty(t, told)
	require.True(t, strings.HasPrefix(done, "[\n  {\n    \"EnclaveName\": \"configured\""), done)
	require.Equal(t, "[]\n", u.must("terminate-enclave", "--all"))
}
