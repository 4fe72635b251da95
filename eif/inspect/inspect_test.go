package inspect

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/stretchr/testify/require"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"

	"github.com/nesim/nesim/eif"
	"github.com/nesim/nesim/eif/pack"
	"github.com/nesim/nesim/qemu/setup"
)

func file(name, text string) pack.Entry {
	return pack.Entry{Name: name, Mode: 0o644, Size: int64(len(text)), Open: func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(text)), nil
	}}
}

// ramdisk returns a cpio archive.
func ramdisk(t testing.TB, entries ...pack.Entry) []byte {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, pack.WriteArchive(t.Context(), &b, entries))
	return b.Bytes()
}

// read lists a ramdisk with its files' contents.
func read(t testing.TB, data []byte) (list []string, compression string, err error) {
	t.Helper()
	compression, err = Walk(t.Context(), bytes.NewReader(data), func(f *File, content io.Reader) error {
		text, err := io.ReadAll(content)
		list = append(list, fmt.Sprintf("%s %s %s%s", f.Mode, f.Name, text, f.Target))
		return err
	})
	return list, compression, err
}

// image builds an image.
func image(t testing.TB, kernel, cmdline string, ramdisks ...[]byte) *eif.Image {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.eif")
	f, err := os.Create(path)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	spec := eif.BuildSpec{Kernel: strings.NewReader(kernel), Cmdline: cmdline, Metadata: []byte("{}")}
	for _, r := range ramdisks {
		spec.Ramdisks = append(spec.Ramdisks, bytes.NewReader(r))
	}
	_, err = eif.Build(t.Context(), f, spec)
	require.NoError(t, err)
	info, err := f.Stat()
	require.NoError(t, err)
	img, err := eif.Open(f, info.Size())
	require.NoError(t, err)
	return img
}

func TestARamdiskIsListedWithEveryKindOfFile(t *testing.T) {
	data := ramdisk(t, file("bin/app", "text"), pack.Entry{Name: "link", Mode: fs.ModeSymlink | 0o777, Target: "bin/app"},
		pack.Entry{Name: "null", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o666, Major: 1, Minor: 3})
	list, compression, err := read(t, data)
	require.NoError(t, err)
	require.Empty(t, compression)
	require.Equal(t, []string{"drwxr-xr-x bin ", "-rw-r--r-- bin/app text", "Lrwxrwxrwx link bin/app", "Dcrw-rw-rw- null "}, list)
}

func TestARamdiskMayBeSeveralArchivesTheLastOneCompressed(t *testing.T) {
	one, two, three := ramdisk(t, file("one", "1")), ramdisk(t, file("two", "22")), ramdisk(t, file("three", "333"))
	plain := append(append(bytes.Clone(one), make([]byte, 512)...), two...)
	for name, open := range map[string]func(io.Writer) (io.WriteCloser, error){
		"gzip": func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil },
		"zstd": func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) },
		"xz":   func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) },
		"lzma": func(w io.Writer) (io.WriteCloser, error) { return lzma.NewWriter(w) },
		"lz4": func(w io.Writer) (io.WriteCloser, error) {
			z := lz4.NewWriter(w)
			return z, z.Apply(lz4.LegacyOption(true))
		},
	} {
		var b bytes.Buffer
		b.Write(plain)
		w, err := open(&b)
		require.NoError(t, err)
		_, err = w.Write(append(bytes.Clone(three), one...))
		require.NoError(t, err)
		require.NoError(t, w.Close())
		list, compression, err := read(t, b.Bytes())
		require.NoError(t, err, name)
		require.Equal(t, name, compression)
		require.Equal(t, []string{"-rw-r--r-- one 1", "-rw-r--r-- two 22", "-rw-r--r-- three 333", "-rw-r--r-- one 1"}, list, name)
	}
}

func TestModesAreWrittenAsByLs(t *testing.T) {
	for want, mode := range map[string]fs.FileMode{
		"-rw-r--r--": 0o644, "drwxrwxrwt": fs.ModeDir | fs.ModeSticky | 0o777, "lrwxrwxrwx": fs.ModeSymlink | 0o777,
		"crw-rw-rw-": fs.ModeDevice | fs.ModeCharDevice | 0o666, "brw-rw----": fs.ModeDevice | 0o660, "prw-------": fs.ModeNamedPipe | 0o600,
		"-rwsr-xr-x": fs.ModeSetuid | 0o755, "-rwxr-sr-x": fs.ModeSetgid | 0o755, "-rwSr--r--": fs.ModeSetuid | 0o644, "srwxr-xr-x": fs.ModeSocket | 0o755,
	} {
		require.Equal(t, want, File{Mode: mode}.LsMode())
	}
}

func TestABrokenRamdiskIsToldWithThePlace(t *testing.T) {
	good := ramdisk(t, file("name", "text"))
	edit := func(at int, text string) []byte {
		b := bytes.Clone(good)
		copy(b[at:], text)
		return b
	}
	for want, data := range map[string][]byte{
		"at byte 0: neither a cpio archive nor":                []byte("text"),
		"at byte 0: no cpio header in the newc format: it":     []byte("070707" + strings.Repeat("0", 200)),
		"at byte 0: the archive is cut off":                    good[:50],
		"at byte 0: its name: the archive is cut off":          good[:112],
		"at byte 0: number 12 of its cpio header is \"zzzzzz":  edit(94, "zzzzzzzz"),
		"at byte 0: its name is 4294967295 bytes long":         edit(94, "ffffffff"),
		"at byte 0: its name is 0 bytes long":                  edit(94, "00000000"),
		"at byte 0: \"name\": its mode 0 is of no type of":     edit(14, "00000000"),
		"at byte 0: the archive is cut off ":                   nil,
		"at byte 120: no cpio header in the newc format: it b": edit(120, "0x"),
		"at byte 0: gzip: ":                                    []byte("\x1f\x8b broken"),
		"at byte 0: lzma: it asks for a dictionary of 4095 Mi": []byte("\x5d\x00\x00\xff\xff\xff"),
		"at byte 0: lzo: nesim cannot unpack this":             []byte("\x89LZO"),
	} {
		if data == nil {
			data, want = edit(54, "7fffffff"), strings.TrimSpace(want)
		}
		_, _, err := read(t, data)
		require.ErrorContains(t, err, want)
	}
	stop := errors.New("stop")
	_, err := Walk(t.Context(), bytes.NewReader(good), func(*File, io.Reader) error { return stop })
	require.ErrorIs(t, err, stop)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = Walk(ctx, bytes.NewReader(good), func(*File, io.Reader) error { return nil })
	require.ErrorIs(t, err, context.Canceled)
}

func TestKernelsAreToldApart(t *testing.T) {
	bzImage := make([]byte, 0x300)
	copy(bzImage[setupMagicOffset:], "HdrS")
	binary.LittleEndian.PutUint16(bzImage[setupVersionOffset:], 0x80)
	copy(bzImage[0x280:], "6.1.2-test (builder@host) #1")
	arm := make([]byte, 100)
	copy(arm[arm64MagicOffset:], "ARM\x64")
	for _, c := range []struct {
		data    []byte
		want    Kernel
		problem string
	}{
		{bzImage, Kernel{Format: BzImage, Arch: eif.ArchX86_64, Release: "6.1.2-test"}, ""},
		{vmlinux(elf.EM_X86_64, true), Kernel{Format: Vmlinux, Arch: eif.ArchX86_64, PVH: true}, ""},
		{vmlinux(elf.EM_X86_64, false), Kernel{Format: Vmlinux, Arch: eif.ArchX86_64}, "without a PVH entry point"},
		{vmlinux(elf.EM_AARCH64, false), Kernel{Format: Vmlinux, Arch: eif.ArchAArch64}, "for aarch64: build it with a kernel for x86_64"},
		{vmlinux(elf.EM_RISCV, false), Kernel{Format: Vmlinux}, "for another processor"},
		{arm, Kernel{Format: ARM64Image, Arch: eif.ArchAArch64}, "an arm64 Image, for aarch64"},
		{[]byte("text"), Kernel{Format: UnknownKernel}, "neither a bzImage nor an ELF vmlinux"},
		{nil, Kernel{Format: UnknownKernel}, "neither a bzImage nor an ELF vmlinux"},
	} {
		k := IdentifyKernel(bytes.NewReader(c.data), int64(len(c.data)))
		require.Equal(t, c.want, k)
		if c.problem == "" {
			require.NoError(t, CheckKernel(k, eif.ArchX86_64))
		} else {
			require.ErrorContains(t, CheckKernel(k, eif.ArchX86_64), c.problem)
		}
	}
	require.ErrorContains(t, CheckKernel(Kernel{}, eif.ArchAArch64), "the image is for aarch64")
}

func TestTheEnclaveKernelIsKnown(t *testing.T) {
	kernel, err := setup.FindKernel()
	require.NoError(t, err)
	f, err := os.Open(kernel.Image)
	require.NoError(t, err)
	defer f.Close()
	info, err := f.Stat()
	require.NoError(t, err)
	k := IdentifyKernel(f, info.Size())
	require.Greater(t, k.End, uint64(16<<20), "where it unpacks itself")
	require.Equal(t, Kernel{Format: BzImage, Arch: eif.ArchX86_64, Release: kernel.Release, End: k.End, RamdiskMax: 1<<31 - 1}, k)
}

// vmlinux makes an ELF file of one segment, of notes.
func vmlinux(machine elf.Machine, pvh bool) []byte {
	var b, note bytes.Buffer
	kind := uint32(6)
	if pvh {
		kind = notePVH
	}
	for _, n := range []uint32{6, kind} {
		binary.Write(&note, binary.LittleEndian, []uint32{4, 8, n})
		note.WriteString("Xen\x00")
		note.Write(make([]byte, 8))
	}
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: 1, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1, Shentsize: 64}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	binary.Write(&b, binary.LittleEndian, h)
	binary.Write(&b, binary.LittleEndian, elf.Prog64{Type: uint32(elf.PT_NOTE), Off: 120, Filesz: uint64(note.Len()), Align: 4})
	b.Write(note.Bytes())
	return b.Bytes()
}

func TestAnImageIsTakenApart(t *testing.T) {
	disk := ramdisk(t, file("init", "x"))
	img := image(t, "a kernel", "quiet", disk, []byte("no archive"))
	dir := filepath.Join(t.TempDir(), "out")
	names, err := Extract(t.Context(), img, dir)
	require.NoError(t, err)
	require.Equal(t, []string{"kernel", "cmdline", "metadata.json", "ramdisk-0.cpio", "ramdisk-1.cpio"}, names)
	for name, want := range map[string]string{"kernel": "a kernel", "cmdline": "quiet", "ramdisk-0.cpio": string(disk)} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, want, string(text))
	}
	_, err = Extract(t.Context(), img, dir)
	require.ErrorContains(t, err, "there is a file kernel already: choose an empty folder")

	content, err := Describe(t.Context(), img)
	require.NoError(t, err)
	require.Equal(t, "quiet", content.Cmdline)
	require.Contains(t, content.Problem, "neither a bzImage")
	require.Equal(t, "init", content.Ramdisks[0].Files[0].Name)
	require.Contains(t, content.Ramdisks[1].Problem, "at byte 0: neither")
	require.Len(t, content.Sections, 5)
}

func TestASignedImageGivesItsCertificate(t *testing.T) {
	f, err := os.Open("../testdata/p384.eif")
	require.NoError(t, err)
	defer f.Close()
	info, err := f.Stat()
	require.NoError(t, err)
	img, err := eif.Open(f, info.Size())
	require.NoError(t, err)
	dir := t.TempDir()
	names, err := Extract(t.Context(), img, dir)
	require.NoError(t, err)
	require.Contains(t, names, "certificate.pem")
	require.Contains(t, names, "signature.cbor")
}

func TestADifferenceNamesSectionsFilesAndPCRs(t *testing.T) {
	boot := ramdisk(t, file("init", "x"))
	before := image(t, "kernel", "quiet", boot, ramdisk(t, file("app", "1"), file("gone", ""), file("mode", "")))
	changed := file("mode", "")
	changed.Mode = 0o600
	after := image(t, "kernel", "quiet", boot, ramdisk(t, file("app", "2"), file("new", ""), changed))
	d, err := Diff(t.Context(), before, after)
	require.NoError(t, err)
	require.False(t, d.Same())
	require.Len(t, d.Sections, 1)
	require.Equal(t, "ramdisk 1", d.Sections[0].Section)
	require.Equal(t, []string{"PCR0", "PCR2"}, d.Sections[0].PCRs)
	require.Equal(t, []FileChange{{"app", "content"}, {"gone", "removed"}, {"mode", "mode"}, {"new", "added"}}, d.Sections[0].Files)
	require.Equal(t, []string{"PCR0", "PCR2"}, []string{d.PCRs[0].PCR, d.PCRs[1].PCR})

	d, err = Diff(t.Context(), before, before)
	require.NoError(t, err)
	require.True(t, d.Same())

	d, err = Diff(t.Context(), image(t, "kernel", "quiet", boot), image(t, "kernel", "loud", boot, boot))
	require.NoError(t, err)
	require.Equal(t, []SectionChange{
		{Section: "command line", PCRs: []string{"PCR0", "PCR1"}, Before: "quiet", After: "loud"},
		{Section: "ramdisk 1", PCRs: []string{"PCR0", "PCR2"}, After: fmt.Sprintf("%d bytes", len(boot))},
	}, d.Sections)
}

// FuzzRamdisk reads an arbitrary ramdisk: it must end, and what it lists must have the sizes that it says.
func FuzzRamdisk(f *testing.F) {
	good := ramdisk(f, file("bin/app", "text"), pack.Entry{Name: "link", Mode: fs.ModeSymlink | 0o777, Target: "bin/app"})
	f.Add(good)
	f.Add(append(bytes.Clone(good), good...))
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	w.Write(good)
	w.Close()
	f.Add(z.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		read := int64(0)
		const enough = 64 << 20
		_, err := Walk(t.Context(), bytes.NewReader(data), func(file *File, content io.Reader) error {
			n, err := io.Copy(io.Discard, content)
			if read += n; read > enough {
				return errors.New("enough")
			}
			require.LessOrEqual(t, n, file.Size)
			require.LessOrEqual(t, len(file.Name), maxName)
			return err
		})
		if err != nil {
			require.NotEmpty(t, err.Error())
		}
	})
}

// FuzzKernel identifies an arbitrary kernel.
func FuzzKernel(f *testing.F) {
	f.Add(vmlinux(elf.EM_X86_64, true))
	f.Add(make([]byte, 0x300))
	f.Fuzz(func(t *testing.T, data []byte) {
		k := IdentifyKernel(bytes.NewReader(data), int64(len(data)))
		require.NotEmpty(t, k.Format)
	})
}
