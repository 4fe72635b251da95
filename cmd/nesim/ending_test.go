package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/sim/instance"
)

func TestTheExitCodeOfAnAttachedEnclaveIsItsWorkloads(t *testing.T) {
	zero, three := 0, 3
	for _, test := range []struct {
		ending instance.Ending
		code   int
	}{
		{instance.Ending{Reason: "guest exit", ExitCode: &zero, Detail: "workload exited with code 0"}, 0},
		{instance.Ending{Reason: "guest exit", ExitCode: &three, Detail: "workload exited with code 3"}, 3},
		{instance.Ending{Reason: "guest exit", Signal: "SIGSEGV", Detail: "workload killed by signal 11 (SIGSEGV)"}, 139},
		{instance.Ending{Reason: "guest exit", Detail: "init failed: start workload"}, 1},
		{instance.Ending{Reason: "guest exit"}, 0}, // of another init
		{instance.Ending{Reason: "asked", Asked: true}, 0},
		{instance.Ending{Reason: "guest panic", Detail: "sysrq triggered crash"}, 1},
		{instance.Ending{Reason: "VM killed", Detail: "SIGKILL (killed)"}, 1},
	} {
		err := endingError(test.ending)
		if test.code == 0 {
			require.NoError(t, err)
			continue
		}
		require.Equal(t, test.code, exitCode(err), "%+v", test.ending)
		require.Contains(t, complaint(err), "nesim: the enclave ended: "+test.ending.Cause())
	}
}

// Somebody's workload was over before he looked: nothing told why, nor what it had said.
func TestAWorkloadThatEndsAtOnceLeavesItsCodeAndItsConsole(t *testing.T) {
	u := newUser(t)
	image := u.imageOf("/hello\nexit\n3\n", "")
	stdout, stderr, err := u.run("", "run-enclave", "--eif-path", image, "--cpu-count", "2", "--memory", "256", "--enclave-name", "brief", "--attach-console")
	exit := (*exec.ExitError)(nil)
	require.ErrorAs(t, err, &exit, stderr)
	require.Equal(t, 3, exit.ExitCode(), stderr)
	require.Contains(t, stdout, "init: workload exited with code 3")
	require.Contains(t, stderr, "nesim: the enclave ended: guest exit: workload exited with code 3")

	ending := u.wait("brief")
	require.Equal(t, "guest exit", ending.Reason)
	require.Equal(t, "workload exited with code 3", ending.Detail)
	require.Equal(t, 3, *ending.ExitCode)
	require.Empty(t, u.enclaves())
	require.Contains(t, u.must("console", "--enclave-name", "brief"), "init: workload exited with code 3; powering off")
	require.Contains(t, u.must("console", "--enclave-id", ending.ID), "hello: exiting with code 3")
	require.Contains(t, u.refused("terminate-enclave", "--enclave-name", "brief"), "none is running")

	// Without debug mode the console stays closed, and the code is known all the same.
	u.must("run-enclave", "--eif-path", image, "--cpu-count", "2", "--memory", "256", "--enclave-name", "closed")
	require.Equal(t, 3, *u.wait("closed").ExitCode)
	require.Contains(t, u.refused("console", "--enclave-name", "closed"), "[E44]")
}

func TestAWorkloadThatCannotStartSaysWhy(t *testing.T) {
	u := newUser(t)
	// execve(2) takes no argument of more than 32 pages.
	image := u.imageOf("/hello\n"+strings.Repeat("x", 33*4096)+"\n", "")
	u.must("run-enclave", "--eif-path", image, "--cpu-count", "2", "--memory", "256", "--enclave-name", "none")
	ending := u.wait("none")
	require.Contains(t, ending.Detail, `init failed: start workload /hello: argument list too long`)
	require.Nil(t, ending.ExitCode)
}

func TestABootThatFailsSaysWhyInOneLine(t *testing.T) {
	u := newUser(t)
	for cmdline, want := range map[string]string{
		// An init whose interpreter is not in the ramdisk, as one that is linked dynamically.
		"rdinit=/rootfs/bad":  "the enclave did not boot: guest panic: No working init found: Failed to execute /rootfs/bad (error -2: it, or the interpreter that it names, is missing from the ramdisk)",
		"rdinit=/cmd":         "the enclave did not boot: guest panic: No working init found: Failed to execute /cmd (error -13: it is not executable)",
		"rdinit=/rootfs/none": "the enclave did not boot: guest panic: VFS: Unable to mount root fs on",
	} {
		image := u.imageOf("/hello\n", "reboot=k panic=30 console=ttyS0 "+cmdline)
		told := u.refused("run-enclave", "--eif-path", image, "--cpu-count", "2", "--memory", "256", "--enclave-name", "bad")
		require.Contains(t, told, "[E36] "+want)
		require.NotContains(t, told, "|")
		ending := u.wait("bad")
		require.Contains(t, told, ending.Cause())
		log, err := os.ReadFile(filepath.Join(u.dir, "nesim.log"))
		require.NoError(t, err)
		require.Contains(t, string(log), ending.Detail)
	}
}

// imageOf builds an image with a /cmd and, unless it is empty, a kernel command line.
func (u *user) imageOf(cmd, cmdline string) string {
	u.Helper()
	rootfs := helloFolder(u, u.TempDir())
	require.NoError(u, os.WriteFile(filepath.Join(rootfs, "cmd"), []byte(cmd), 0o600))
	require.NoError(u, os.WriteFile(filepath.Join(rootfs, "bad"), []byte("#!/no/such/interpreter\n"), 0o755))
	image := filepath.Join(u.TempDir(), "image.eif")
	args := []string{"build-enclave", "--rootfs", rootfs, "--output-file", image}
	if cmdline != "" {
		args = append(args, "--cmdline", cmdline)
	}
	u.must(args...)
	return image
}

func TestWhatAnEnclaveSaysDoesNotSteerTheTerminal(t *testing.T) {
	for said, shown := range map[string]string{
		"plain\tänd 世界\r\n":     "plain\tänd 世界\r\n",
		"\x1b[2J\x1b]0;title\a": "·[2J·]0;title·",
		"back\b\b\x7f":          "back···",
		"\u009b31m":             "·31m",             // CSI in one character
		"\x9b31m \xff":          "\ufffd31m \ufffd", // not UTF-8
		"\u202eabc\u2066":       "·abc·",            // written backwards
		"\x00\v\f":              "···",
	} {
		for size := 1; size <= len(said); size++ { // however the bytes come
			var out bytes.Buffer
			w := &tamed{w: &out}
			for rest := []byte(said); len(rest) > 0; {
				n, err := w.Write(rest[:min(size, len(rest))])
				require.NoError(t, err)
				rest = rest[n:]
			}
			require.Equal(t, shown, strings.ReplaceAll(out.String()+strings.Repeat("\ufffd", len(w.rest)), "�", "\ufffd"), "%q by %d", said, size)
		}
	}
	require.IsType(t, &bytes.Buffer{}, tame(&bytes.Buffer{}, false), "what is no terminal gets every byte")
	w := &tamed{w: failing{}}
	_, err := w.Write([]byte("x"))
	require.Error(t, err)
}

func TestJSONOnATerminalDoesNotSteerIt(t *testing.T) {
	name := "a\u009b31m\u202e\U000e0001\x7f世\n"
	raw, err := json.Marshal(map[string]string{"name": name})
	require.NoError(t, err)
	shown := escapeJSON(string(raw))
	require.NotContains(t, shown, "\u009b")
	require.NotContains(t, shown, "\u202e")
	require.Contains(t, shown, `a\u009b31m\u202e\udb40\udc01\u007f世`)
	var back map[string]string
	require.NoError(t, json.Unmarshal([]byte(shown), &back))
	require.Equal(t, name, back["name"])
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("full") }
