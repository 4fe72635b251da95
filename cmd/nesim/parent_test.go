package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/sim/instance"
)

func TestACommandRunsInAPrimaryVM(t *testing.T) {
	u := newUser(t)
	root := filepath.Join(u.dir, "root")
	require.NoError(t, os.MkdirAll(filepath.Join(root, "etc"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(root, "etc/motto"), []byte("of the root folder\n"), 0o644))
	copied := filepath.Join(u.dir, "copied")
	require.NoError(t, os.WriteFile(copied, []byte("of the copy\n"), 0o644))

	sent := strings.Repeat("a line of input\n", 10_000)
	stdout, stderr, err := u.run(sent, "parent", "--accel", "tcg", "--root", root, "--copy", copied, "--copy", copied+":/opt/there",
		"--hugepages", "64", "--exec",
		`cd /sys/devices/virtual/dmi/id && cat board_asset_tag sys_vendor product_name bios_vendor board_vendor chassis_asset_tag &&
		cut -c 1-3 product_uuid && cd && cat /etc/motto copied /opt/there; cat /sys/module/nitro_enclaves/parameters/ne_cpus; test -c /dev/nitro_enclaves &&
		cat /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages && echo to the other >&2 && cat; exit 42`)
	exit := (*exec.ExitError)(nil)
	require.ErrorAs(t, err, &exit, stderr)
	require.Equal(t, 42, exit.ExitCode())
	instance := instance.InstanceID + "\nAmazon EC2\nm5.xlarge\nAmazon EC2\nAmazon EC2\nAmazon EC2\nec2\n"
	require.Equal(t, instance+"of the root folder\nof the copy\nof the copy\n2-3\n32\n"+sent, stdout)
	require.Equal(t, "to the other\n", stderr)
	require.Empty(t, u.processes("vfio-user-pci"))
}

func TestAPrimaryVMThatIsInterruptedOrLosesItsDaemonLeavesNothing(t *testing.T) {
	u := newUser(t)
	for name, test := range map[string]struct {
		end  func(parent *exec.Cmd)
		exit int
		says string
	}{
		"interrupted": {func(parent *exec.Cmd) { require.NoError(t, parent.Process.Signal(syscall.SIGINT)) }, 130, "interrupted"},
		"killed":      {func(parent *exec.Cmd) { require.NoError(t, parent.Process.Kill()) }, -1, ""},
		"no daemon":   {func(*exec.Cmd) { u.must("shutdown") }, 1, "the daemon has ended"},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		cmd := u.command(ctx, "parent", "--accel", "tcg", "--exec", "sleep 1000")
		var stderr strings.Builder
		cmd.Stderr = &stderr
		require.NoError(t, cmd.Start())
		require.Eventually(t, func() bool { return len(u.processes("vfio-user-pci")) > 0 }, limit, 10*time.Millisecond, name)
		test.end(cmd)
		_ = cmd.Wait()
		cancel()
		require.Equal(t, test.exit, cmd.ProcessState.ExitCode(), "%s: %s", name, stderr.String())
		require.Contains(t, stderr.String(), test.says, name)
		require.Eventually(t, func() bool { return len(u.processes("vfio-user-pci")) == 0 }, limit, 10*time.Millisecond, name)
	}
}

func TestAPrimaryVMThatCannotBeIsRefusedInOneLine(t *testing.T) {
	u := newUser(t)
	for _, test := range []struct {
		args  []string
		tells string
	}{
		{[]string{"--cpus", "3"}, "3 CPUs cannot form whole cores of 2 threads"},
		{[]string{"--memory", "256", "--hugepages", "256"}, "do not fit into 256 MiB"},
		{[]string{"--copy", "a:b"}, "absolute path"},
		{[]string{"--copy", filepath.Join(u.dir, "none")}, "no such file"},
		{[]string{"--root", filepath.Join(u.dir, "none")}, "no such file"},
		{[]string{"--accel", "fast"}, "choose auto, kvm or tcg"},
		{[]string{"--accel", "tcg", "--ne-cpus", "1"}, "the NE driver refuses the CPU pool 1"},
	} {
		require.Contains(t, u.refused(append([]string{"parent", "--exec", "true"}, test.args...)...), test.tells)
		require.Empty(t, u.processes("vfio-user-pci"))
	}
}
