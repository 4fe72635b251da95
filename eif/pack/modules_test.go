package pack

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
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
	list := records(t, bytes.NewReader(archive(t, moduleEntries(modules)...)))
	_, order := find(t, list, "modules/order")
	require.Equal(t, "vsock.ko\na_common.ko\na_transport.ko\nnsm.ko\n", order)
	_, data := find(t, list, "modules/a_transport.ko")
	require.Equal(t, string(transport), data)

	_, err = readModules(paths[:2])
	require.EqualError(t, err, "kernel module a_common needs module vsock: add it")
	require.Empty(t, moduleEntries(nil))
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
			moduleNeeds(data)
		}
	})
}
