package pack

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/eif"
)

func TestBlobsOfNitroCLIMakeItsBootstrapRamdisk(t *testing.T) {
	dir := folder(t, map[string]string{"bzImage": "a kernel", "init": "an init", "cmdline": "reboot=k quiet\n", "linuxkit": ""})
	require.NoError(t, os.WriteFile(filepath.Join(dir, "nsm.ko"), elfModule(t, "depends=\x00"), 0o600))
	spec := Spec{Application: app(), Output: filepath.Join(t.TempDir(), "out.eif")}
	require.NoError(t, spec.UseBlobs(dir))
	_, err := Build(t.Context(), spec)
	require.NoError(t, err)
	data, err := os.ReadFile(spec.Output)
	require.NoError(t, err)
	image, err := eif.Open(bytes.NewReader(data), int64(len(data)))
	require.NoError(t, err)
	cmdline, err := image.Cmdline()
	require.NoError(t, err)
	require.Equal(t, "reboot=k quiet", cmdline)
	require.Equal(t, []string{"dev", "dev/console", "dev/null", "init", "nsm.ko"}, names(ramdisks(t, data)[0]))

	own := Spec{Kernel: "kernel", Init: "init", Cmdline: "x"}
	require.NoError(t, own.UseBlobs(dir))
	require.Equal(t, Spec{Kernel: "kernel", Init: "init", Cmdline: "x", NSM: dir + "/nsm.ko"}, own, "what is said stays")

	require.NoError(t, os.Remove(dir+"/nsm.ko"))
	require.NoError(t, new(Spec).UseBlobs(dir))
	require.NoError(t, os.Remove(dir+"/cmdline"))
	require.EqualError(t, new(Spec).UseBlobs(dir), "blobs folder: "+dir+"/cmdline: no such file or directory")
	require.ErrorContains(t, new(Spec).UseBlobs(dir+"/none"), "blobs folder: "+dir+"/none/")
}

func TestTheKernelsConfigurationTellsItsVersion(t *testing.T) {
	dir := folder(t, map[string]string{
		"config": "#\n# Automatically generated file; DO NOT EDIT.\n# Linux/x86_64 4.14.177-104.253.amzn2.x86_64 Kernel Configuration\n#\n",
		"short":  "#\n",
		"odd":    "#\n#\n#\n#\n",
	})
	spec := Spec{}
	require.NoError(t, spec.DescribeKernel(dir+"/config"))
	require.Equal(t, eif.BuildMetadata{OperatingSystem: "Linux", KernelVersion: "4.14.177"}, spec.Metadata.Build)
	require.ErrorContains(t, spec.DescribeKernel(dir+"/short"), "has no third line")
	require.ErrorContains(t, spec.DescribeKernel(dir+"/odd"), "does not tell")
	require.ErrorContains(t, spec.DescribeKernel(dir+"/none"), "kernel configuration: ")
}

func TestCustomMetadataIsAFileOfJSON(t *testing.T) {
	dir := folder(t, map[string]string{"meta": `{"team": "web"}`, "bad": "{"})
	spec := testSpec(t, app())
	require.NoError(t, spec.SetCustom(dir+"/meta"))
	_, err := Build(t.Context(), spec)
	require.NoError(t, err)
	require.NoError(t, spec.SetCustom(dir+"/bad"))
	_, err = Build(t.Context(), spec)
	require.ErrorContains(t, err, "the custom metadata")
}

func TestWorkingDirectoryAndUserStandInFilesOfTheirOwn(t *testing.T) {
	spec := testSpec(t, app())
	spec.Application.WorkDir = "/srv/app"
	spec.Application.User = &User{UID: 1000, GID: 100, Groups: []uint32{7}}
	_, err := Build(t.Context(), spec)
	require.NoError(t, err)
	data, err := os.ReadFile(spec.Output)
	require.NoError(t, err)
	list := ramdisks(t, data)[1]
	_, dir := find(t, list, "workdir")
	require.Equal(t, "/srv/app\n", dir)
	_, user := find(t, list, "user")
	require.Equal(t, "1000\n100\n7\n", user)

	for _, bad := range []string{"relative", "/a\nb"} {
		spec.Application.WorkDir = bad
		_, err = Build(t.Context(), spec)
		require.ErrorContains(t, err, "application ramdisk: working directory")
	}
}
