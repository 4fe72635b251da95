package pack

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/eif"
)

// app is a small application.
func app() Application {
	return Application{Files: []Entry{file("app", 0o755, []byte("a program"))}, Command: []string{"/app"}}
}

func TestTheImageMeasuresAsBuilt(t *testing.T) {
	spec := testSpec(t, app())
	spec.Metadata = eif.Metadata{ImageName: "web", Build: eif.BuildMetadata{KernelVersion: "6.12"}}
	m, err := Build(t.Context(), spec)
	require.NoError(t, err)

	data, err := os.ReadFile(spec.Output)
	require.NoError(t, err)
	image, err := eif.Open(bytes.NewReader(data), int64(len(data)))
	require.NoError(t, err)
	got, err := image.Measure(t.Context())
	require.NoError(t, err)
	require.True(t, m.Equal(got))
	cmdline, err := image.Cmdline()
	require.NoError(t, err)
	require.Equal(t, DefaultCmdline, cmdline)

	text, err := image.Metadata()
	require.NoError(t, err)
	meta, err := eif.ParseMetadata(text)
	require.NoError(t, err)
	require.Equal(t, "web", meta.ImageName)
	require.Equal(t, eif.BuildMetadata{
		BuildTime: "1970-01-01T00:00:00+00:00", BuildTool: "nesim", OperatingSystem: "Linux", KernelVersion: "6.12",
	}, meta.Build)
}

func TestTheBuildTimeIsSourceDateEpochAndIsNotMeasured(t *testing.T) {
	spec := testSpec(t, app())
	m, err := Build(t.Context(), spec)
	require.NoError(t, err)

	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	dated, err := Build(t.Context(), spec)
	require.NoError(t, err)
	require.True(t, m.Equal(dated))
	data, err := os.ReadFile(spec.Output)
	require.NoError(t, err)
	require.Contains(t, string(data), `"BuildTime":"2023-11-14T22:13:20+00:00"`)

	for _, bad := range []string{"yesterday", "-1", "99999999999999"} {
		t.Setenv("SOURCE_DATE_EPOCH", bad)
		_, err = Build(t.Context(), spec)
		require.ErrorContains(t, err, "it should be a number of seconds after 1970")
	}
}

func TestTheImageAppearsWholeOrNotAtAll(t *testing.T) {
	dir := t.TempDir()
	spec := testSpec(t, app())
	spec.Output = filepath.Join(dir, "out.eif")
	require.NoError(t, os.WriteFile(spec.Output, []byte("the one before"), 0o600))

	ctx, cancel := context.WithCancel(t.Context())
	broken := spec
	broken.Application.Files = []Entry{{Name: "f", Size: 1 << 20, Open: reader(strings.Repeat("x", 1<<20), cancel)}}
	_, err := Build(ctx, broken)
	require.ErrorIs(t, err, context.Canceled)
	text, err := os.ReadFile(spec.Output)
	require.NoError(t, err)
	require.Equal(t, "the one before", string(text))

	_, err = Build(t.Context(), spec)
	require.NoError(t, err)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 1, "only the image is left")
}

func TestBadSpecsAreToldInOneLine(t *testing.T) {
	dir := t.TempDir()
	for want, change := range map[string]func(*Spec){
		"kernel: no file is named":                                      func(s *Spec) { s.Kernel = "" },
		"kernel: no/such: no such file":                                 func(s *Spec) { s.Kernel = "no/such" },
		"kernel: " + dir + " is a directory: it should be a":            func(s *Spec) { s.Kernel = dir },
		"bootstrap ramdisk: init: no/such: no such file":                func(s *Spec) { s.Init = "no/such" },
		"bootstrap ramdisk: kernel module no/such.ko":                   func(s *Spec) { s.Modules = []string{"no/such.ko"} },
		"application ramdisk: cmd: names no program to run":             func(s *Spec) { s.Application.Command = nil },
		"application ramdisk: env: line 1 holds a newline":              func(s *Spec) { s.Application.Env = []string{"A=1\nB=2"} },
		"application ramdisk: invalid file name \"/app\"":               func(s *Spec) { s.Application.Files[0].Name = "/app" },
		"no output file is named":                                       func(s *Spec) { s.Output = "" },
		"build EIF " + dir + ": is a directory":                         func(s *Spec) { s.Output = dir },
		"build EIF " + dir + "/none/out.eif: no such file or directory": func(s *Spec) { s.Output = dir + "/none/out.eif" },
		"Linux takes at most":                                           func(s *Spec) { s.Cmdline = strings.Repeat("x", 5000) },
	} {
		spec := testSpec(t, app())
		change(&spec)
		_, err := Build(t.Context(), spec)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "\n")
	}
}

func TestAContentIsNeverHeldInMemory(t *testing.T) {
	const size = 64 << 20
	dir := folder(t, map[string]string{"cmd": "/app", "zeroes": ""})
	require.NoError(t, os.Truncate(filepath.Join(dir, "zeroes"), size))
	app, err := FromFolder(t.Context(), dir)
	require.NoError(t, err)
	spec := testSpec(t, app)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err = Build(t.Context(), spec)
	require.NoError(t, err)
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(size/4))
}

func TestAMissingProgramTellsHowToGetIt(t *testing.T) {
	_, err := program("none")
	require.EqualError(t, err, "this nesim was built without the enclave's none: run make build")
}
