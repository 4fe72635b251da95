package setup

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

const goodDevices = `name "vhost-user-vsock-device", bus virtio-bus
name "vhost-user-test-device", bus virtio-bus`

// fakeQEMU writes a program that answers --version and -device help as QEMU does.
func fakeQEMU(t *testing.T, path, version, devices string) string {
	t.Helper()
	script := "#!/bin/sh\ncase $1 in\n--version) echo 'QEMU emulator version " + version + " (fake)' ;;\n" +
		"*) echo '" + devices + "' ;;\nesac\n"
	return writeFile(t, path, script, 0o755)
}

func writeFile(t *testing.T, path, text string, mode os.FileMode) string {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(text), mode))
	return path
}

// bzImage is the least that passes for a kernel.
func bzImage(release string) string {
	image := make([]byte, 0x400)
	copy(image[0x202:], "HdrS")
	image[0x20f] = 0x01 // the version is at 0x200 + 0x100
	copy(image[0x300:], release+" (someone@somewhere) #1 SMP\x00")
	return string(image)
}

// nowhere points every place that is searched at an empty folder, and returns the cache's and PATH's.
func nowhere(t *testing.T) (cache, path string) {
	t.Helper()
	dir := t.TempDir()
	cache, path = filepath.Join(dir, "cache"), filepath.Join(dir, "bin")
	require.NoError(t, os.Mkdir(path, 0o755))
	for _, name := range []string{"NESIM_QEMU", "NESIM_KERNEL", "NESIM_MODULES"} {
		t.Setenv(name, "")
	}
	t.Setenv("NESIM_CACHE", cache)
	t.Setenv("PATH", path)
	return cache, path
}

func TestTheFetchedPartsAreFound(t *testing.T) {
	q, err := FindQEMU(t.Context())
	require.NoError(t, err)
	require.False(t, q.Version.Less(MinVersion))

	k, err := FindDebianKernel()
	require.NoError(t, err)
	require.NotEmpty(t, k.Release)
	order, err := k.LoadOrder(append(FeatureModules(), "virtio_mmio", "vmw_vsock_virtio_transport", "nsm")...)
	require.NoError(t, err)
	for _, file := range order {
		require.FileExists(t, file)
	}

	if os.Getenv("NESIM_KERNEL") == "" {
		nitro, err := FindNitroKernel()
		require.NoError(t, err)
		found, err := FindKernel()
		require.NoError(t, err)
		require.Equal(t, nitro, found, "an enclave's kernel is the one shaped as AWS's where that is there")
	}
}

func TestTheQEMUThatTheUserNamesIsTheOnlyOneConsidered(t *testing.T) {
	cache, path := nowhere(t)
	fakeQEMU(t, filepath.Join(cache, "qemu/qemu-system-x86_64"), "11.0.0", goodDevices)
	fakeQEMU(t, filepath.Join(path, "qemu-system-x86_64"), "11.0.0", goodDevices)
	own := filepath.Join(t.TempDir(), "own")

	t.Setenv("NESIM_QEMU", own)
	_, err := FindQEMU(t.Context())
	require.ErrorIs(t, err, os.ErrNotExist)

	fakeQEMU(t, own, "7.2.17", goodDevices)
	_, err = FindQEMU(t.Context())
	require.ErrorContains(t, err, "own is QEMU 7.2.17, older than 10.2.0")

	fakeQEMU(t, own, "10.2.0", goodDevices)
	q, err := FindQEMU(t.Context())
	require.NoError(t, err)
	require.Equal(t, QEMU{Path: own, Version: Version{10, 2, 0}, NSM: true, From: "NESIM_QEMU", Sandbox: sandbox}, q)
}

func TestAGoodQEMUOnPATHGoesBeforeTheFetchedOne(t *testing.T) {
	cache, path := nowhere(t)
	fetched := fakeQEMU(t, filepath.Join(cache, "qemu/qemu-system-x86_64"), "11.1.2", goodDevices)
	host := filepath.Join(path, "qemu-system-x86_64")

	for _, unfit := range []struct{ version, devices string }{
		{"10.1.9", goodDevices},
		{"11.0.0", `name "virtio-net-pci", bus PCI`},
	} {
		fakeQEMU(t, host, unfit.version, unfit.devices)
		q, err := FindQEMU(t.Context())
		require.NoError(t, err)
		require.Equal(t, fetched, q.Path)
	}

	fakeQEMU(t, host, "12.0.50", goodDevices)
	q, err := FindQEMU(t.Context())
	require.NoError(t, err)
	require.Equal(t, host, q.Path)
}

func TestAQEMUWithoutTheNSMsDeviceIsTheLastChoice(t *testing.T) {
	cache, path := nowhere(t)
	host := fakeQEMU(t, filepath.Join(path, "qemu-system-x86_64"), "11.0.0", `name "vhost-user-vsock-device", bus virtio-bus`)
	q, err := FindQEMU(t.Context())
	require.NoError(t, err)
	require.Equal(t, QEMU{Path: host, Version: Version{11, 0, 0}, From: fromPath, Sandbox: sandbox}, q)

	fetched := fakeQEMU(t, filepath.Join(cache, "qemu/qemu-system-x86_64"), "11.1.2", goodDevices)
	q, err = FindQEMU(t.Context())
	require.NoError(t, err)
	require.Equal(t, fetched, q.Path)
}

func TestAQEMUWithoutSeccompHasNoSandbox(t *testing.T) {
	_, path := nowhere(t)
	host := fakeQEMU(t, filepath.Join(path, "qemu-system-x86_64"), "11.0.0", goodDevices)
	script, err := os.ReadFile(host)
	require.NoError(t, err)
	refuses := "#!/bin/sh\ncase \"$*\" in *-sandbox*) echo \"There is no option group 'sandbox'\" >&2; exit 1;; esac\n"
	writeFile(t, host, refuses+string(script), 0o755)
	q, err := FindQEMU(t.Context())
	require.NoError(t, err)
	require.Equal(t, QEMU{Path: host, Version: Version{11, 0, 0}, NSM: true, From: fromPath}, q)
}

func TestWithoutAQEMUTheErrorSaysWhatToDo(t *testing.T) {
	_, path := nowhere(t)
	_, err := FindQEMU(t.Context())
	require.EqualError(t, err, "no QEMU >= 10.2.0 found: run `make deps`, or set NESIM_QEMU to one")

	host := fakeQEMU(t, filepath.Join(path, "qemu-system-x86_64"), "7.2.17", goodDevices)
	_, err = FindQEMU(t.Context())
	require.EqualError(t, err, "no QEMU >= 10.2.0 found ("+host+" is QEMU 7.2.17, older than 10.2.0): run `make deps`, or set NESIM_QEMU to one")

	writeFile(t, host, "#!/bin/sh\necho first >&2; echo cannot load libfoo >&2; exit 127\n", 0o755)
	_, err = FindQEMU(t.Context())
	require.ErrorContains(t, err, "--version failed: exit status 127: cannot load libfoo)")

	writeFile(t, host, "#!/bin/sh\necho something else\n", 0o755)
	_, err = FindQEMU(t.Context())
	require.ErrorContains(t, err, `is no QEMU: its --version says "something else"`)
}

func TestASearchThatIsGivenUpIsNoMissingQEMU(t *testing.T) {
	_, path := nowhere(t)
	fakeQEMU(t, filepath.Join(path, "qemu-system-x86_64"), "11.0.0", goodDevices)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := FindQEMU(ctx)
	require.ErrorIs(t, err, context.Canceled)
}

// A nesim that was started in somebody's folder ran the QEMU that he had left there.
func TestTheWorkingFolderAndThoseAboveItAreNotSearched(t *testing.T) {
	nowhere(t)
	t.Setenv("NESIM_CACHE", "")
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("PATH", ".:"+os.Getenv("PATH")+":a")
	top := t.TempDir()
	deep := filepath.Join(top, "a", "b")
	require.NoError(t, os.MkdirAll(deep, 0o755))
	for _, dir := range []string{top, filepath.Join(top, "a"), deep} {
		t.Chdir(dir)
		for _, name := range []string{".cache/qemu/qemu-system-x86_64", "qemu-system-x86_64"} {
			fakeQEMU(t, filepath.Join(dir, name), "11.0.0", goodDevices)
		}
		writeFile(t, filepath.Join(dir, ".cache/kernel/vmlinuz"), bzImage("6.1.0"), 0o644)
		writeFile(t, filepath.Join(dir, ".cache/busybox/busybox"), "", 0o755)
		_, err := FindQEMU(t.Context())
		require.ErrorContains(t, err, "no QEMU")
		_, err = FindKernel()
		require.ErrorContains(t, err, "no enclave kernel found")
		_, err = FindBusybox()
		require.ErrorContains(t, err, "no busybox found")
	}
}

func TestAProgramFindsThePartsOfItsOwnCheckout(t *testing.T) {
	nowhere(t)
	t.Setenv("NESIM_CACHE", "")
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Chdir(t.TempDir())
	top := t.TempDir()
	exe := filepath.Join(top, "bin", "nesim")
	executable = func() (string, error) { return exe, nil }
	defer func() { executable = os.Executable }()
	qemu := fakeQEMU(t, filepath.Join(top, ".cache/qemu/qemu-system-x86_64"), "11.0.0", goodDevices)
	_, err := FindQEMU(t.Context())
	require.ErrorContains(t, err, "no QEMU", "installed in some prefix, which is no checkout")

	writeFile(t, filepath.Join(top, "go.mod"), "module nesim", 0o644)
	q, err := FindQEMU(t.Context())
	require.NoError(t, err)
	require.Equal(t, qemu, q.Path)
	require.Equal(t, fromCheckout, q.From)

	require.NoError(t, os.Chmod(filepath.Dir(qemu), 0o777))
	_, err = FindQEMU(t.Context())
	require.ErrorContains(t, err, "no QEMU", "anybody could have put it there")
	require.NoError(t, os.Chmod(filepath.Dir(qemu), 0o755))
	if os.Getuid() == 0 {
		require.NoError(t, os.Chown(qemu, 65534, 65534))
		_, err = FindQEMU(t.Context())
		require.ErrorContains(t, err, "no QEMU", "another user's")
	}
}

func TestTheUsersCacheFolderIsSearchedLast(t *testing.T) {
	nowhere(t)
	user := t.TempDir()
	t.Setenv("NESIM_CACHE", "")
	t.Setenv("XDG_CACHE_HOME", user)
	t.Chdir(t.TempDir())
	qemu := fakeQEMU(t, filepath.Join(user, "nesim/qemu/qemu-system-x86_64"), "11.0.0", goodDevices)

	q, err := FindQEMU(t.Context())
	require.NoError(t, err)
	require.Equal(t, qemu, q.Path)
}

func TestTheFetchedKernelComesWithItsModules(t *testing.T) {
	cache, _ := nowhere(t)
	_, err := FindKernel()
	require.ErrorContains(t, err, "run `make deps`, or set NESIM_KERNEL")

	dir := filepath.Join(cache, "kernel")
	writeFile(t, filepath.Join(dir, "vmlinuz"), bzImage("6.12.1-cloud"), 0o644)
	_, err = FindKernel()
	require.ErrorIs(t, err, os.ErrNotExist)

	writeFile(t, filepath.Join(dir, "modules/modules.dep"), "b.ko: a.ko\na.ko:\n", 0o644)
	k, err := FindKernel()
	require.NoError(t, err)
	require.Equal(t, Kernel{
		Image:   filepath.Join(dir, "vmlinuz"),
		Config:  filepath.Join(dir, "config"),
		Modules: filepath.Join(dir, "modules"),
		From:    "NESIM_CACHE", Release: "6.12.1-cloud",
	}, k)
	order, err := k.LoadOrder("b")
	require.NoError(t, err)
	require.Equal(t, []string{filepath.Join(dir, "modules/a.ko"), filepath.Join(dir, "modules/b.ko")}, order)
}

func TestTheKernelShapedAsAWSsGoesBeforeDebians(t *testing.T) {
	cache, _ := nowhere(t)
	_, err := FindNitroKernel()
	require.ErrorContains(t, err, "run `make kernel`")
	writeFile(t, filepath.Join(cache, "kernel/vmlinuz"), bzImage("6.12.1-cloud"), 0o644)
	writeFile(t, filepath.Join(cache, "kernel/modules/modules.dep"), "", 0o644)
	kernels, err := Kernels()
	require.NoError(t, err)
	require.Len(t, kernels, 1)

	nitro := writeFile(t, filepath.Join(cache, "nitro/vmlinuz"), bzImage("6.12.1-nesim"), 0o644)
	k, err := FindKernel()
	require.NoError(t, err)
	require.Equal(t, Kernel{Image: nitro, Config: filepath.Join(cache, "nitro/config"), From: "NESIM_CACHE", Release: "6.12.1-nesim"}, k)
	debian, err := FindDebianKernel()
	require.NoError(t, err)
	require.Equal(t, "6.12.1-cloud", debian.Release)
	kernels, err = Kernels()
	require.NoError(t, err)
	require.Equal(t, []Kernel{k, debian}, kernels)

	own := writeFile(t, filepath.Join(t.TempDir(), "bzImage"), bzImage("4.14.256"), 0o644)
	t.Setenv("NESIM_KERNEL", own)
	kernels, err = Kernels()
	require.NoError(t, err)
	require.Equal(t, []Kernel{{Image: own, From: "NESIM_KERNEL", Release: "4.14.256"}}, kernels)
}

func TestAnOwnKernelMayHaveEverythingBuiltIn(t *testing.T) {
	nowhere(t)
	own := filepath.Join(t.TempDir(), "bzImage")
	t.Setenv("NESIM_KERNEL", own)
	_, err := FindKernel()
	require.ErrorIs(t, err, os.ErrNotExist)

	writeFile(t, own, "\x7fELF", 0o644)
	_, err = FindKernel()
	require.EqualError(t, err, "enclave kernel "+own+": not a bzImage")

	writeFile(t, own, bzImage("4.14.256"), 0o644)
	k, err := FindKernel()
	require.NoError(t, err)
	require.Equal(t, Kernel{Image: own, From: "NESIM_KERNEL", Release: "4.14.256"}, k)
	order, err := k.LoadOrder("vsock")
	require.NoError(t, err)
	require.Empty(t, order)
}

func TestModulesAreLoadedAfterAllTheyNeed(t *testing.T) {
	dep := "kernel/net/vsock.ko:\n" +
		"kernel/net/vmw-common.ko: kernel/net/vsock.ko\n" +
		"kernel/net/vmw_transport.ko: kernel/net/vmw-common.ko kernel/net/vsock.ko\n" +
		"kernel/nsm.ko.xz:\n" +
		"../../outside.ko:\n"
	order, err := loadOrder(dep, []string{"vmw-transport", "vsock", "built_in"})
	require.NoError(t, err)
	require.Equal(t, []string{"kernel/net/vsock.ko", "kernel/net/vmw-common.ko", "kernel/net/vmw_transport.ko"}, order)

	order, err = loadOrder(dep, []string{"nsm"})
	require.NoError(t, err)
	require.Equal(t, []string{"kernel/nsm.ko.xz"}, order)
	_, err = loadOrder(dep, []string{"outside"})
	require.ErrorContains(t, err, "outside the folder")
}
