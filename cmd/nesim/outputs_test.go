package main

import (
	"bytes"
	"crypto/elliptic"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/eif"
	"github.com/nesim/nesim/internal/files/smalldisk"
)

// smallImage writes an EIF of a few kilobytes.
func smallImage(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	_, err = eif.Build(t.Context(), f, eif.BuildSpec{
		Kernel: strings.NewReader(strings.Repeat("kernel", 1000)), Cmdline: "quiet", Ramdisks: []io.Reader{strings.NewReader("ramdisk")},
	})
	require.NoError(t, err)
}

// outputs are commands that write a file at PATH, given a small IMAGE and a RECORDING.
var outputs = map[string]string{
	"attestation document": "attest document --eif-path IMAGE --output PATH",
	"JSON report":          "scenario run --tags smoke --report json=PATH",
	"HTML report":          "scenario run --tags smoke --report html=PATH",
	"scenario":             "scenario replay RECORDING --scenario PATH",
	"enclave image":        "build-enclave --rootfs ROOTFS --output-file PATH",
}

// prepareOutputs makes what the commands read.
func (u *user) prepareOutputs(t *testing.T, path string) func(command string) []string {
	dir := t.TempDir()
	image, recording, rootfs := filepath.Join(dir, "image"), filepath.Join(dir, "recording"), helloFolder(t, dir)
	smallImage(t, image)
	require.NoError(t, os.WriteFile(recording, []byte(`{"at_ns":1,"session":1,"what":"attached"}`+"\n"), 0o600))
	u.must("attest", "root") // so that there is one
	return func(command string) (args []string) {
		return strings.Fields(strings.NewReplacer("PATH", path, "IMAGE", image, "RECORDING", recording, "ROOTFS", rootfs).Replace(command))
	}
}

func TestAFullDiskLeavesTheOldOutputAndNothingElse(t *testing.T) {
	u := newUser(t)
	dir := smalldisk.New(t)
	path := filepath.Join(dir, "out")
	args := u.prepareOutputs(t, path)
	require.NoError(t, os.WriteFile(path, []byte("old"), 0o600))
	signed := filepath.Join(dir, "signed.eif")
	smallImage(t, signed)
	image, err := os.ReadFile(signed)
	require.NoError(t, err)
	id := u.valid("signer", elliptic.P384())
	smalldisk.Fill(t, dir)

	requireUntouched := func(t *testing.T) {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, "old", string(text))
		left, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Len(t, left, 3, "%v", left)
	}
	full := func(t *testing.T, message string) {
		require.Regexp(t, "no space left on device|file too large", message)
		require.NotContains(t, message, ".part")
		requireUntouched(t)
	}
	for name, command := range outputs {
		t.Run(name, func(t *testing.T) {
			_, errs, err := u.run("", args(command)...)
			require.Error(t, err)
			require.Contains(t, errs, path)
			full(t, errs)
		})
	}
	t.Run("signed image", func(t *testing.T) {
		full(t, u.refused("sign-eif", "--eif-path", signed, "--signing-certificate", id.certificate, "--private-key", id.key))
		now, err := os.ReadFile(signed)
		require.NoError(t, err)
		require.True(t, bytes.Equal(image, now))
	})
	t.Run("sections of an image", func(t *testing.T) {
		full(t, u.refused("eif", "extract", signed, "--output", dir))
	})
	t.Run("manual pages", func(t *testing.T) {
		full(t, u.refused("man", "--output", dir))
	})
}

func TestOutputsGoToPipesAndDevices(t *testing.T) {
	u := newUser(t)
	fifo := filepath.Join(t.TempDir(), "fifo")
	require.NoError(t, unix.Mkfifo(fifo, 0o600))
	for name, command := range outputs {
		t.Run(name, func(t *testing.T) {
			args := u.prepareOutputs(t, "/dev/stdout")
			require.NotEmpty(t, u.must(args(command)...))
			args = u.prepareOutputs(t, os.DevNull)
			u.must(args(command)...)
			got := make(chan int)
			go func() {
				b, _ := os.ReadFile(fifo)
				got <- len(b)
			}()
			args = u.prepareOutputs(t, fifo)
			u.must(args(command)...)
			require.Positive(t, <-got)
		})
	}
	info, err := os.Stat(os.DevNull)
	require.NoError(t, err)
	require.Equal(t, os.ModeDevice|os.ModeCharDevice, info.Mode().Type())
}
