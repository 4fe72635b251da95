package pack

import (
	"bytes"
	"compress/gzip"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"github.com/ulikunitz/xz"
)

func TestModulesAreLoadedAfterThoseTheyNeed(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, data, 0o600))
		return path
	}
	transport := elfModule(t, "license=GPL\x00depends=vsock,a-common\x00name=a_transport\x00")
	common := elfModule(t, "depends=vsock\x00")
	paths := []string{
		write("a_transport.ko.xz", compressed(t, transport, func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) })),
		write("a-common.ko.zst", compressed(t, common, func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) })),
		write("vsock.ko.gz", compressed(t, elfModule(t, "depends=\x00"), func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil })),
		write("nsm.ko", elfModule(t, "")),
	}
	modules, err := readModules(paths)
	require.NoError(t, err)
	list := records(t, bytes.NewReader(archive(t, bootModules(modules)...)))
	_, order := find(t, list, "modules/order")
	require.Equal(t, "vsock.ko\na_common.ko\na_transport.ko\nnsm.ko\n", order)
	_, data := find(t, list, "modules/a_transport.ko")
	require.Equal(t, string(transport), data)

	_, err = readModules(paths[:2])
	require.EqualError(t, err, "kernel module a_common needs module vsock: add it")
	require.Empty(t, bootModules(nil))
}

func TestModulesOnDemandAreListedAsKmodListsThem(t *testing.T) {
	write := func(name, info string) string {
		path := filepath.Join(t.TempDir(), name)
		require.NoError(t, os.WriteFile(path, elfModule(t, info), 0o600))
		return path
	}
	spec := Spec{
		Modules: []string{write("vsock.ko", "alias=net-pf-40\x00")},
		OnDemand: []string{
			write("vsock_loopback.ko", "depends=vsock,loop-common\x00alias=vsock_local\x00"),
			write("loop-common.ko", ""),
			write("tun.ko", "alias=devname:net/tun\x00alias=char-major-10-200\x00alias=rtnl-link-tun\x00alias=a bad one\x00"),
		},
	}
	entries, err := spec.modules()
	require.NoError(t, err)
	list := records(t, bytes.NewReader(archive(t, entries...)))
	require.Equal(t, []string{
		"modules", "modules/loop_common.ko.gz", "modules/modules.alias", "modules/modules.dep", "modules/modules.devname",
		"modules/order", "modules/tun.ko.gz", "modules/vsock.ko", "modules/vsock_loopback.ko.gz",
	}, names(list))
	for name, want := range map[string]string{
		"order":           "vsock.ko\n",
		"modules.dep":     "loop_common.ko.gz:\ntun.ko.gz:\nvsock_loopback.ko.gz: loop_common.ko.gz\n",
		"modules.alias":   "alias devname:net/tun tun\nalias char-major-10-200 tun\nalias rtnl-link-tun tun\nalias vsock_local vsock_loopback\n",
		"modules.devname": "tun net/tun c10:200\n",
	} {
		_, text := find(t, list, "modules/"+name)
		require.Equal(t, want, text)
	}

	spec.OnDemand = spec.OnDemand[:1]
	_, err = spec.modules()
	require.EqualError(t, err, "kernel module vsock_loopback needs module loop_common: add it")
}

func TestAnotherInitStandsBehindOursWhereThereAreModules(t *testing.T) {
	require.NoError(t, buildPrograms())
	spec := testSpec(t, Application{Command: []string{"/app"}})
	inits := func() []string {
		ramdisk, err := spec.bootstrap()
		require.NoError(t, err)
		return slices.Sorted(maps.Keys(ramdisk))
	}
	require.Equal(t, []string{"dev", "dev/console", "dev/null", "init"}, inits())
	path := filepath.Join(t.TempDir(), "nsm.ko")
	require.NoError(t, os.WriteFile(path, elfModule(t, ""), 0o600))
	spec.Modules = []string{path}
	require.Equal(t, []string{"dev", "dev/console", "dev/null", "init", "init.next", "modules", "modules/nsm.ko", "modules/order"}, inits())
}

func compressed(t *testing.T, data []byte, open func(io.Writer) (io.WriteCloser, error)) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := open(&b)
	require.NoError(t, err)
	_, err = w.Write(data)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}

func TestWhatIsNoModuleIsRefused(t *testing.T) {
	for name, want := range map[string]string{
		"text":                 "is no ELF file",
		"\x1f\x8b broken":      "decompress: ",
		"\xfd7zXZ\x00 broken":  "decompress: ",
		"\x28\xb5\x2f\xfd\x00": "decompress: ",
		string(bytes.Replace(elfModule(t, ""), []byte(".modinfo"), []byte(".notinfo"), 1)): "has no section .modinfo",
	} {
		path := filepath.Join(t.TempDir(), "x.ko")
		require.NoError(t, os.WriteFile(path, []byte(name), 0o600))
		_, err := readModules([]string{path})
		require.ErrorContains(t, err, "kernel module "+path+": "+want)
	}
	_, err := readModules([]string{"no/such.ko"})
	require.EqualError(t, err, "kernel module no/such.ko: no/such.ko: no such file or directory")
}

func TestAModuleIsBoundedEvenWhenCompressed(t *testing.T) {
	bomb := compressed(t, make([]byte, maxModuleSize+1), func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriterLevel(w, 1) })
	_, err := decompress(bomb)
	require.EqualError(t, err, "decompress: is longer than 64 MiB")
}

func FuzzModule(f *testing.F) {
	f.Add([]byte("\x1f\x8b\x08"))
	f.Add([]byte("\x7fELF\x02\x01\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if data, err := decompress(data); err == nil {
			moduleInfo(data)
		}
	})
}
