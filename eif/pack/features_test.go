package pack

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/qemu"
	"github.com/nesim/nesim/qemu/setup"
)

// guestProgram builds a program of testdata for an enclave and returns its path.
func guestProgram(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "./testdata/"+name)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return path
}

func TestAnotherInitBootsTheEnclave(t *testing.T) {
	path := guestProgram(t, "otherinit")
	onEachKernel(t, func(t *testing.T, kernel setup.Kernel) {
		spec := helloSpec(t, kernel)
		spec.Init = path
		if kernel.Config != "" {
			_, err := spec.DisableCgroups(kernel.Config)
			require.NoError(t, err)
		}
		e := boot(t, spec, true)
		e.alive()
		require.Equal(t, "GREETING=hi", e.command("env"))
		require.Equal(t, "exiting with code 3", e.command("exit 3"))
		require.Equal(t, qemu.GuestReset, e.ended().Reason)
		require.Contains(t, e.console.text(), "other init: workload ended: exit status 3")
	})
}

// TestTheKernelsFeaturesWorkInAnEnclave uses them from a workload that has done nothing to get them.
func TestTheKernelsFeaturesWorkInAnEnclave(t *testing.T) {
	program, err := os.ReadFile(guestProgram(t, "features"))
	require.NoError(t, err)
	path, err := setup.FindBusybox()
	require.NoError(t, err)
	busybox, err := os.ReadFile(path)
	require.NoError(t, err)
	onEachKernel(t, func(t *testing.T, kernel setup.Kernel) {
		spec := helloSpec(t, kernel)
		spec.Application.Files = []Entry{file("features", 0o755, program), file("busybox", 0o755, busybox), directory("mnt")}
		spec.Application.Command = []string{"/features"}
		before := time.Now()
		e := boot(t, spec, true)
		e.ended()
		text := e.console.text()
		for _, name := range []string{
			"bridge", "veth", "dummy", "address", "link up", "route", "rule", "tap", "iptables nat", "iptables filter", "ip6tables nat",
			"overlay", "loop", "squashfs", "ext4", "fuse", "shared memory",
		} {
			require.Contains(t, text, "feature "+name+": ok")
		}
		date := regexp.MustCompile(`feature date: (\d+)`).FindStringSubmatch(text)
		require.Len(t, date, 2, text)
		seconds, err := strconv.ParseInt(date[1], 10, 64)
		require.NoError(t, err)
		require.WithinRange(t, time.Unix(seconds, 0), before.Add(-2*time.Second), time.Now().Add(2*time.Second))
	})
}
