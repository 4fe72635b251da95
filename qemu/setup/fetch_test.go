package setup

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// fetcher runs fetch.sh with stand-ins for apt and dpkg, and without a network.
type fetcher struct {
	t     *testing.T
	bin   string // all of PATH
	cache string
	calls string // a line for every download
	env   []string

	options []string // of fetch.sh
}

// What the stand-ins share: a package is a file that names it; unpacking it lays out the least of its content.
const (
	fakeAptGet = `#!/bin/sh
case "$*" in
*--print-uris*) printf '%s\n' "'http://other.invalid/ubuntu/dists/noble/InRelease' x 0" \
	"'http://debian.invalid/debian/dists/bookworm/InRelease' x 0" \
	"'http://debian.invalid/security/dists/bookworm-security/InRelease' x 0" | grep "$FAKE_SOURCES" ;;
*update*)
	grep -q '^deb \[.*signed-by=/.*\] http://debian.invalid/debian [a-z]* main$' "$(dirname "$2")/sources.list" ||
		{ echo 'W: odd'; echo 'E: no such list'; exit 100; } ;;
*download*linux-source*) echo source >>"$FAKE_CALLS"; echo source >linux-source-6.12_1.deb ;;
*download*flex*) echo tools >>"$FAKE_CALLS"; echo tools >flex_1.deb ;;
*download*busybox*) echo busybox >>"$FAKE_CALLS"; echo busybox >busybox-static_1.deb ;;
*install*)
	archives=$(dirname "$2")/cache/archives
	[ -e "$archives/qemu.deb" ] || { echo qemu >>"$FAKE_CALLS"; echo qemu >"$archives/qemu.deb"; }
	[ ! -e "$FAKE_STALL" ] || { : >"$FAKE_STALL.now"; exec sleep 600; } ;;
*download*) echo kernel >>"$FAKE_CALLS"; echo kernel >"${*##* }_1.deb" ;;
esac
`
	fakeAptCache = `#!/bin/sh
case "$*" in
*show*) echo 'Version: 1:11.1.2+ds-3' ;;
*depends*linux-source*) printf '%s\n' linux-source '  Depends: linux-source-6.12' ;;
*depends*) printf '%s\n' linux-image-cloud-amd64 '  Depends: linux-image-6.12.1-cloud-amd64' ;;
esac
`
	fakeDpkgDeb = `#!/bin/sh
case $(cat "$2") in
qemu)
	mkdir -p "$3/usr/bin" "$3/usr/lib64" "$3/usr/lib/x86_64-linux-gnu" "$3/usr/share/qemu" "$3/usr/share/doc/qemu" "$3/etc"
	cp "$FAKE_QEMU" "$3/usr/lib64/ld-linux-x86-64.so.2"
	: >"$3/usr/bin/qemu-system-x86_64"; : >"$3/usr/bin/other"
	: >"$3/usr/share/doc/qemu/copyright"; : >"$3/usr/share/doc/qemu/README" ;;
kernel)
	mkdir -p "$3/boot" "$3/usr/lib/modules/6.12.1-cloud-amd64/kernel"
	: >"$3/boot/vmlinuz-6.12.1-cloud-amd64"; : >"$3/boot/config-6.12.1-cloud-amd64" ;;
busybox)
	mkdir -p "$3/usr/bin" "$3/usr/share/doc/busybox-static"
	: >"$3/usr/bin/busybox"; : >"$3/usr/share/doc/busybox-static/copyright" ;;
source)
	mkdir -p "$3/usr/src"
	cp "$FAKE_SOURCE" "$3/usr/src/linux-source-6.12.tar.xz" ;;
tools) mkdir -p "$3/usr/bin" ;;
esac
`
	// QEMU's stand-in is started as the wrapper starts the dynamic loader.
	fakeLoader = `#!/bin/sh
case "$*" in
*--version) echo 'QEMU emulator version 11.1.2' ;;
*) echo 'name "vhost-user-vsock-device"'; echo 'name "vhost-user-test-device"' ;;
esac
`
)

// The kernel's make has "configured" what FAKE_CONFIG says, or everything that it is asked for.
const fakeMake = `#!/bin/sh
for word in "$@"; do
	case $word in
	KCONFIG_ALLCONFIG=*)
		cp "${word#*=}" .config
		[ ! -e UNKNOWN ] || grep -v "$(cat UNKNOWN)" "${word#*=}" >.config ;;
	bzImage)
		[ ! -e BROKEN ] || { echo 'fork.c:1: error: no such thing'; exit 2; }
		mkdir -p arch/x86/boot include/config
		echo image >arch/x86/boot/bzImage
		echo 6.12.1-nesim >include/config/kernel.release ;;
	esac
done
`

func newFetcher(t *testing.T) *fetcher {
	dir := t.TempDir()
	f := &fetcher{t: t, bin: filepath.Join(dir, "bin"), cache: filepath.Join(dir, "a cache"), calls: filepath.Join(dir, "calls")}
	require.NoError(t, os.Mkdir(f.bin, 0o755))
	for _, tool := range strings.Fields("bash sh awk cat chmod cksum cp cut dirname du env find flock grep ln mkdir mv nproc readlink rm sed sleep sort tail tar tr xz") {
		path, err := exec.LookPath(tool)
		require.NoError(t, err)
		require.NoError(t, os.Symlink(path, filepath.Join(f.bin, tool)))
	}
	f.tool("apt-get", fakeAptGet)
	f.tool("apt-cache", fakeAptCache)
	f.tool("dpkg-deb", fakeDpkgDeb)
	f.tool("dpkg", "#!/bin/sh\necho amd64\n")
	f.env = []string{
		"PATH=" + f.bin,
		"NESIM_KEYRING=" + writeFile(t, filepath.Join(dir, "keyring"), "", 0o644),
		"FAKE_QEMU=" + writeFile(t, filepath.Join(dir, "loader"), fakeLoader, 0o755),
		"FAKE_CALLS=" + f.calls,
		"FAKE_SOURCES=.",
		"FAKE_STALL=" + f.stall(),
	}
	return f
}

func (f *fetcher) tool(name, script string) {
	writeFile(f.t, filepath.Join(f.bin, name), script, 0o755)
}

// stall is the file that makes apt stop half-way; it makes stall().now when it has.
func (f *fetcher) stall() string { return f.calls + ".stall" }

func (f *fetcher) command(ctx context.Context, env ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(f.bin, "bash"), append(append([]string{"fetch.sh"}, f.options...), f.cache)...)
	cmd.Env = append(f.env[:len(f.env):len(f.env)], env...)
	cmd.WaitDelay = time.Second
	return cmd
}

func (f *fetcher) run(env ...string) (string, error) {
	out, err := f.command(f.t.Context(), env...).CombinedOutput()
	return string(out), err
}

// refused runs fetch.sh, which must fail with one line, and returns that line.
func (f *fetcher) refused(env ...string) string {
	out, err := f.run(env...)
	require.Error(f.t, err, out)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	last := lines[len(lines)-1]
	require.True(f.t, strings.HasPrefix(last, "nesim: "), out)
	return last
}

func (f *fetcher) requireWhole() {
	for _, name := range []string{"qemu/qemu-system-x86_64", "qemu/usr/share/doc/qemu/copyright", "kernel/vmlinuz", "kernel/config", "kernel/modules/modules.dep"} {
		require.FileExists(f.t, filepath.Join(f.cache, name))
	}
	for _, name := range []string{"apt", "tmp", "qemu/etc", "qemu/usr/bin/other", "qemu/usr/share/doc/qemu/README"} {
		require.NoFileExists(f.t, filepath.Join(f.cache, name))
		require.NoDirExists(f.t, filepath.Join(f.cache, name))
	}
}

func (f *fetcher) downloads() string {
	text, err := os.ReadFile(f.calls)
	require.NoError(f.t, err)
	return string(text)
}

func TestFetchPutsBothPartsInPlaceOnce(t *testing.T) {
	f := newFetcher(t)
	out, err := f.run()
	require.NoError(t, err, out)
	f.requireWhole()

	out, err = f.run()
	require.NoError(t, err)
	require.Empty(t, out)
	require.Equal(t, "qemu\nkernel\n", f.downloads())
}

func TestFetchRunTwiceAtOnceDownloadsOnce(t *testing.T) {
	f := newFetcher(t)
	var runs sync.WaitGroup
	for range 3 {
		runs.Go(func() {
			out, err := f.run()
			if err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	runs.Wait()
	f.requireWhole()
	require.Equal(t, "qemu\nkernel\n", f.downloads())
}

func TestFetchGoesOnWhereAKilledOneStopped(t *testing.T) {
	f := newFetcher(t)
	writeFile(t, f.stall(), "", 0o644)
	ctx, kill := context.WithCancel(t.Context())
	defer kill()
	cmd := f.command(ctx)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool { _, err := os.Stat(f.stall() + ".now"); return err == nil }, time.Minute, 10*time.Millisecond)
	kill()
	require.Error(t, cmd.Wait())
	require.NoDirExists(t, filepath.Join(f.cache, "qemu"))

	require.NoError(t, os.Remove(f.stall()))
	out, err := f.run()
	require.NoError(t, err, out)
	f.requireWhole()
	require.Equal(t, "qemu\nkernel\n", f.downloads())
}

func TestFetchLeavesOwnPartsAlone(t *testing.T) {
	f := newFetcher(t)
	own := fakeQEMU(t, filepath.Join(t.TempDir(), "qemu"), "10.2.0", goodDevices)
	kernel := writeFile(t, filepath.Join(t.TempDir(), "bzImage"), bzImage("6.1"), 0o644)

	out, err := f.run("NESIM_QEMU="+own, "NESIM_KERNEL="+kernel)
	require.NoError(t, err, out)
	require.NoDirExists(t, filepath.Join(f.cache, "apt"))
	require.NoFileExists(t, f.calls)

	fakeQEMU(t, filepath.Join(f.bin, "qemu-system-x86_64"), "11.0.0", goodDevices)
	out, err = f.run()
	require.NoError(t, err, out)
	require.Equal(t, "kernel\n", f.downloads())

	fakeQEMU(t, filepath.Join(f.bin, "qemu-system-x86_64"), "7.2.17", goodDevices)
	out, err = f.run()
	require.NoError(t, err, out)
	require.Equal(t, "kernel\nqemu\n", f.downloads())
}

func TestFetchSaysInOneLineWhatIsMissing(t *testing.T) {
	f := newFetcher(t)
	require.Contains(t, f.refused("NESIM_QEMU=/nonexistent"), "NESIM_QEMU=/nonexistent is no QEMU >= 10.2")
	require.Contains(t, f.refused("NESIM_KERNEL=/nonexistent"), "NESIM_KERNEL=/nonexistent cannot be read")
	require.Contains(t, f.refused("NESIM_KEYRING=/nonexistent"), "install the package debian-archive-keyring")
	require.Contains(t, f.refused("FAKE_SOURCES=ubuntu"), "apt on this machine knows no Debian mirror: set NESIM_MIRROR")
	require.Contains(t, f.refused("NESIM_MIRROR=http://other.invalid"), "apt cannot read Debian's list of forky packages: no such list")

	f.tool("dpkg", "#!/bin/sh\necho riscv64\n")
	require.Contains(t, f.refused(), "only amd64 has parts ready to fetch")
	require.NoError(t, os.Remove(filepath.Join(f.bin, "apt-get")))
	require.Contains(t, f.refused(), "apt-get is missing")
	require.NoFileExists(t, f.calls)
}

func TestFetchTakesAMirrorWhereAptKnowsNone(t *testing.T) {
	f := newFetcher(t)
	out, err := f.run("FAKE_SOURCES=ubuntu", "NESIM_MIRROR=http://debian.invalid/debian")
	require.NoError(t, err, out)
	f.requireWhole()
}

func TestFetchMakesAPartAnewWhenItsRecipeChanged(t *testing.T) {
	f := newFetcher(t)
	out, err := f.run()
	require.NoError(t, err, out)
	writeFile(t, filepath.Join(f.cache, "kernel/recipe"), "0\n", 0o644)
	out, err = f.run()
	require.NoError(t, err, out)
	f.requireWhole()
	require.Equal(t, "qemu\nkernel\nkernel\n", f.downloads())
}

// buildsKernel has f build the kernel, of a source that holds files, with stand-ins for make and the compiler.
func (f *fetcher) buildsKernel(files ...string) {
	f.options = []string{"--nitro"}
	f.tool("make", fakeMake)
	f.tool("gcc", "#!/bin/sh\n")
	dir := f.t.TempDir()
	for _, name := range append(files, "linux-source-6.12/Makefile") {
		writeFile(f.t, filepath.Join(dir, name), "CONFIG_TUN=y", 0o644)
	}
	source := filepath.Join(dir, "source.tar.xz")
	out, err := exec.Command("tar", "-cJf", source, "-C", dir, "linux-source-6.12").CombinedOutput()
	require.NoError(f.t, err, "%s", out)
	f.env = append(f.env, "FAKE_SOURCE="+source)
}

func TestTheKernelIsBuiltOnce(t *testing.T) {
	f := newFetcher(t)
	f.buildsKernel()
	out, err := f.run()
	require.NoError(t, err, out)
	f.requireWhole()
	for name, want := range map[string]string{"vmlinuz": "image\n", "release": "6.12.1-nesim\n"} {
		text, err := os.ReadFile(filepath.Join(f.cache, "nitro", name))
		require.NoError(t, err)
		require.Equal(t, want, string(text))
	}
	require.FileExists(t, filepath.Join(f.cache, "nitro/config"))
	require.NoDirExists(t, filepath.Join(f.cache, "nitro/linux"), "the source is removed")

	out, err = f.run()
	require.NoError(t, err)
	require.Empty(t, out)
	require.Equal(t, "qemu\nkernel\nbusybox\nsource\ntools\n", f.downloads())
}

func TestAnOptionThatDidNotTakeIsNamed(t *testing.T) {
	f := newFetcher(t)
	f.buildsKernel("linux-source-6.12/UNKNOWN")
	require.Contains(t, f.refused(), "that did not take: CONFIG_TUN=y")
	require.NoDirExists(t, filepath.Join(f.cache, "nitro"))
}

func TestAKernelThatDoesNotBuildSaysWhy(t *testing.T) {
	f := newFetcher(t)
	f.buildsKernel("linux-source-6.12/BROKEN")
	require.Contains(t, f.refused(), "the enclave kernel does not build: fork.c:1: error: no such thing (more in "+f.cache+"/tmp/nitro.log)")
	require.FileExists(t, filepath.Join(f.cache, "tmp/nitro.log"))
}

func TestAMissingCompilerIsNamedBeforeAnythingIsDownloadedForIt(t *testing.T) {
	f := newFetcher(t)
	f.buildsKernel()
	require.NoError(t, os.Remove(filepath.Join(f.bin, "gcc")))
	require.Contains(t, f.refused(), "gcc is missing, which the enclave kernel is built with: install the packages gcc, libc6-dev, make")
	require.NotContains(t, f.downloads(), "source")
	f.tool("gcc", "#!/bin/sh\nexit 1\n")
	require.Contains(t, f.refused(), "install the package libc6-dev")
}
