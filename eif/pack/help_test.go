package pack

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/u-root/u-root/pkg/cpio"

	"github.com/nesim/nesim/eif"
)

// archive returns the bytes that a ramdisk of the entries has.
func archive(t *testing.T, entries ...Entry) []byte {
	t.Helper()
	tr, err := newTree(entries)
	require.NoError(t, err)
	var b bytes.Buffer
	require.NoError(t, tr.write(t.Context(), &b))
	return b.Bytes()
}

// records reads an archive back.
func records(t *testing.T, data io.ReaderAt) []cpio.Record {
	t.Helper()
	list, err := cpio.ReadAllRecords(cpio.Newc.Reader(data))
	require.NoError(t, err)
	return list
}

// names lists the records' names, in order.
func names(list []cpio.Record) (names []string) {
	for _, r := range list {
		names = append(names, r.Name)
	}
	return names
}

// find returns the record of a name and its content.
func find(t *testing.T, list []cpio.Record, name string) (cpio.Record, string) {
	t.Helper()
	for _, r := range list {
		if r.Name == name {
			text, err := io.ReadAll(io.NewSectionReader(r, 0, int64(r.FileSize)))
			require.NoError(t, err)
			return r, string(text)
		}
	}
	require.Fail(t, "no such record", "%s in %q", name, names(list))
	return cpio.Record{}, ""
}

// folder writes files, by their names, into a new folder. A name that ends in "/" is a directory.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		if name[len(name)-1] == '/' {
			require.NoError(t, os.MkdirAll(path, 0o755))
			continue
		}
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	return dir
}

// testSpec returns a spec with small stand-ins for kernel and init.
func testSpec(t *testing.T, app Application) Spec {
	t.Helper()
	dir := folder(t, map[string]string{"kernel": "a kernel", "init": "an init"})
	return Spec{
		Application: app,
		Kernel:      filepath.Join(dir, "kernel"),
		Init:        filepath.Join(dir, "init"),
		Output:      filepath.Join(t.TempDir(), "out.eif"),
	}
}

// buildFolder packs a folder and returns the measurements and the file.
func buildFolder(t *testing.T, dir string) (eif.Measurements, []byte) {
	t.Helper()
	app, err := FromFolder(t.Context(), dir)
	require.NoError(t, err)
	spec := testSpec(t, app)
	m, err := Build(t.Context(), spec)
	require.NoError(t, err)
	data, err := os.ReadFile(spec.Output)
	require.NoError(t, err)
	return m, data
}

// ramdisks opens an EIF and lists its ramdisks' records.
func ramdisks(t *testing.T, data []byte) (lists [][]cpio.Record) {
	t.Helper()
	image, err := eif.Open(bytes.NewReader(data), int64(len(data)))
	require.NoError(t, err)
	for _, r := range image.Ramdisks() {
		require.Zero(t, r.Size()%4, "the kernel finds the next ramdisk at a multiple of 4 only")
		lists = append(lists, records(t, r))
	}
	return lists
}

// elfModule returns the smallest ELF file that passes for a kernel module: one with a section .modinfo.
func elfModule(t *testing.T, modinfo string) []byte {
	t.Helper()
	const headerSize, sectionSize = 64, 64
	strtab := "\x00.modinfo\x00.shstrtab\x00"
	var b bytes.Buffer
	put := func(v any) { require.NoError(t, binary.Write(&b, binary.LittleEndian, v)) }
	infoAt := headerSize
	strAt := infoAt + len(modinfo)
	tableAt := (strAt + len(strtab) + 7) &^ 7
	b.WriteString("\x7fELF\x02\x01\x01" + string(make([]byte, 9)))
	put([]uint16{1, 62}) // ET_REL, EM_X86_64
	put(uint32(1))
	put([]uint64{0, 0, uint64(tableAt)})
	put(uint32(0))
	put([]uint16{headerSize, 0, 0, sectionSize, 3, 2})
	b.WriteString(modinfo + strtab)
	b.Write(make([]byte, tableAt-b.Len()+sectionSize)) // up to the table, and its null section
	for _, s := range []struct{ name, at, size int }{{1, infoAt, len(modinfo)}, {10, strAt, len(strtab)}} {
		kind := uint32(1) // SHT_PROGBITS
		if s.name == 10 {
			kind = 3 // SHT_STRTAB
		}
		put([]uint32{uint32(s.name), kind})
		put([]uint64{0, 0, uint64(s.at), uint64(s.size)})
		put([]uint32{0, 0})
		put([]uint64{1, 0})
	}
	return b.Bytes()
}

// reader is an Entry's Open that calls a function first.
func reader(text string, before func()) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) {
		before()
		return io.NopCloser(bytes.NewReader([]byte(text))), nil
	}
}
