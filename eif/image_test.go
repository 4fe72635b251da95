package eif

import (
	"bytes"
	"crypto/elliptic"
	"errors"
	"hash/crc32"
	"io"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOpenRefusesBadFiles(t *testing.T) {
	long := func(n int) []byte { return bytes.Repeat([]byte("x"), n) }
	second := func(p part) []part { return append(simple(), p) }
	tests := []struct {
		name  string
		parts []part
		edit  func(*Header)
		want  string
	}{
		{"another magic", simple(), func(h *Header) { h.Magic[3] = 'g' }, `it begins with ".eig"`},
		{"version 1", simple(), func(h *Header) { h.Version = 1 }, "version 1 is not supported"},
		{"version 5", simple(), func(h *Header) { h.Version = 5 }, "version 5 is not supported"},
		{"no section", simple(), func(h *Header) { h.NumSections = 0 }, "0 sections are too few"},
		{"33 sections", simple(), func(h *Header) { h.NumSections = 33 }, "33 sections are too many"},
		{"65535 sections", simple(), func(h *Header) { h.NumSections = 0xffff }, "65535 sections are too many"},
		{"more sections than there are", simple(), func(h *Header) {
			h.NumSections, h.SectionOffsets[5] = 6, h.SectionOffsets[4]+SectionHeaderSize+h.SectionSizes[4]
		}, "and the header of section 5 is at 630"},
		{"overlap with the header", simple(), func(h *Header) { h.SectionOffsets[0] = 0 }, "section 0 begins at 0 and overlaps"},
		{"overlap of sections", simple(), func(h *Header) { h.SectionOffsets[2]-- }, "section 2 begins at 584 and overlaps"},
		{"a wrong offset", simple(), func(h *Header) { h.SectionOffsets[1]++ }, "section 1 has the kind 512"},
		{"an offset past the end", simple(), func(h *Header) { h.SectionOffsets[1] = 4096 }, "the header of section 1 is at 4096"},
		{"absurd offset", simple(), func(h *Header) { h.SectionOffsets[1] = math.MaxUint64 }, "truncated: it ends at "},
		{"sizes that disagree", simple(), func(h *Header) { h.SectionSizes[3]++ },
			"section 3 (ramdisk) has 4 bytes by its own header and 5 by the file's"},
		{"stale size of a signature", second(part{SectionSignature, long(9)}), func(h *Header) { h.SectionSizes[5]++ },
			"sign the unsigned image"},
		{"kind 0", second(part{SectionInvalid, nil}), nil, "section 5 has the kind 0"},
		{"kind 6", second(part{6, nil}), nil, "section 5 has the kind 6"},
		{"two kernels", second(part{SectionKernel, long(1)}), nil, "section 5 is a second kernel"},
		{"two command lines", second(part{SectionCmdline, nil}), nil, "section 5 is a second command line"},
		{"two sets of metadata", second(part{SectionMetadata, nil}), nil, "section 5 is a second metadata"},
		{"two signatures", append(second(part{SectionSignature, nil}), part{SectionSignature, nil}), nil,
			"section 6 is a second signature"},
		{"no kernel", simple()[1:3], nil, "it has no kernel section"},
		{"an empty kernel", append([]part{{SectionKernel, nil}}, simple()[1:]...), nil, "the kernel is empty"},
		{"no command line", append(simple()[:1], simple()[2:]...), nil, "it has no command line section"},
		{"no metadata in version 4", append(simple()[:2], simple()[3:]...), nil, "it has no metadata section"},
		{"a ramdisk before the kernel", append(simple()[3:], simple()[:3]...), nil, "ramdisk before the kernel"},
		{"a long command line", append([]part{{SectionCmdline, long(2048)}}, simple()[:1]...), nil,
			"section 0 (command line) has 2048 bytes, 2047 is the limit"},
		{"a long signature", second(part{SectionSignature, long(32769)}), nil, "32768 is the limit"},
		{"long metadata", []part{{SectionMetadata, long(MaxMetadata + 1)}, {SectionKernel, nil}}, nil, "1048576 is the limit"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := openErr(assemble(tt.parts, tt.edit))
			require.ErrorIs(t, err, ErrFormat)
			require.ErrorContains(t, err, tt.want)
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

func TestOpenRefusesAbsurdSizes(t *testing.T) {
	for _, size := range []uint64{1 << 20, math.MaxInt64, math.MaxInt64 + 1, math.MaxUint64 - 600, math.MaxUint64} {
		b := assemble(simple(), func(h *Header) { h.SectionSizes[0] = size })
		copy(b[HeaderSize:], sectionHeader{Kind: SectionKernel, Size: size}.bytes())
		err := openErr(b)
		require.ErrorIs(t, err, ErrFormat)
		require.ErrorContains(t, err, "truncated: section 0 (kernel)")
	}
}

func TestOpenRefusesEveryTruncation(t *testing.T) {
	whole := golden(t, "p384.eif")
	for n := range whole {
		err := openErr(whole[:n])
		require.ErrorIs(t, err, ErrFormat, n)
		// The size may also be a lie, or the file may shrink.
		_, err = Open(bytes.NewReader(whole[:n]), int64(len(whole)))
		if err != nil {
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		}
	}
	for _, size := range []int64{-1, math.MinInt64} {
		_, err := Open(bytes.NewReader(whole), size)
		require.ErrorIs(t, err, ErrFormat)
	}
}

// shifted returns a golden image with n bytes before the first section, and so a file that AWS's reader refuses with
// "Found invalid EIF section", while its hypervisor, by the specification, and QEMU's nitro-enclave machine go by the
// table. whole reports whether the CRC covers the bytes too.
func shifted(t testing.TB, name string, n int, whole bool) []byte {
	old := golden(t, name)
	h := open(t, old).Header()
	for i := range h.NumSections {
		h.SectionOffsets[i] += uint64(n)
	}
	body := old[HeaderSize:]
	if whole {
		body = append(pattern(n, 7), body...)
	}
	h.CRC32 = crc32.ChecksumIEEE(append(h.bytes()[:HeaderSize-crcSize], body...))
	return slices.Concat(h.bytes(), pattern(n, 7), old[HeaderSize:])
}

func TestBytesThatBelongToNoSectionAreSkipped(t *testing.T) {
	for _, name := range goldens {
		whole := golden(t, name+".eif")
		want, err := open(t, whole).Measure(t.Context())
		require.NoError(t, err)
		check := func(what string, image []byte, size int64, stray int64) {
			t.Run(name+" "+what, func(t *testing.T) {
				img := open(t, image)
				require.Equal(t, size, img.Size())
				m, err := img.Measure(t.Context())
				require.NoError(t, err)
				require.True(t, want.Equal(m), "measured as without them")
				d, err := Describe(t.Context(), bytes.NewReader(image), int64(len(image)))
				require.NotNil(t, d, "%v", err)
				require.True(t, d.CheckCRC)
				require.Equal(t, stray, d.Stray)
			})
		}
		end := int64(len(whole))
		check("a few after the end", append(bytes.Clone(whole), pattern(5, 3)...), end, 5)
		check("zeroes after the end", append(bytes.Clone(whole), make([]byte, 4096)...), end, 4096)
		for _, n := range []int{1, 512, chunkSize + 1} {
			check("a gap", shifted(t, name+".eif", n, false), end+int64(n), int64(n))
			check("a gap that the CRC covers", shifted(t, name+".eif", n, true), end+int64(n), int64(n))
		}
	}
	damaged := shifted(t, "two.eif", 512, true)
	damaged[HeaderSize]++
	_, err := open(t, damaged).Measure(t.Context())
	require.ErrorIs(t, err, ErrCRC)

	var out file
	_, err = open(t, shifted(t, "two.eif", 512, true)).Resign(t.Context(), &out, signer(t, ecKey(t, elliptic.P384())))
	require.NoError(t, err)
	require.Zero(t, open(t, out.b).Stray())
}

func TestOpenAcceptsWhatTheSpecificationAllows(t *testing.T) {
	old := func(v uint16) func(h *Header) { return func(h *Header) { h.Version = v } }
	tests := []struct {
		name  string
		parts []part
		edit  func(*Header)
	}{
		{"version 2 without metadata or ramdisk", simple()[:2], old(2)},
		{"version 3 without metadata", append(simple()[:2], simple()[3:]...), old(3)},
		{"no ramdisk", simple()[:3], nil},
		{"an empty command line", []part{{SectionKernel, []byte("k")}, {SectionCmdline, nil}, {SectionMetadata, nil}}, nil},
		{"the longest command line", []part{{SectionKernel, []byte("k")}, {SectionCmdline, make([]byte, MaxCmdline)},
			{SectionMetadata, nil}}, nil},
		{"32 sections", append(simple(), bytesParts(27)...), nil},
		{"anything in reserved fields", simple(), func(h *Header) {
			h.Reserved, h.Unused, h.Flags, h.SectionOffsets[31], h.SectionSizes[31] = 1, 2, 0xfffe, 3, math.MaxUint64
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := open(t, assemble(tt.parts, tt.edit)).Measure(t.Context())
			require.NoError(t, err)
		})
	}
}

func bytesParts(n int) (parts []part) {
	for range n {
		parts = append(parts, part{SectionRamdisk, []byte("r")})
	}
	return parts
}

func TestCmdlineWithAZeroByteIsRefused(t *testing.T) {
	parts := simple()
	parts[1].data = []byte("panic=1\x00init=/bin/sh")
	_, err := open(t, assemble(parts, nil)).Cmdline()
	require.ErrorIs(t, err, ErrFormat)
}

func TestPartsThatAreNotThere(t *testing.T) {
	img := open(t, assemble(simple()[:2], func(h *Header) { h.Version = 3 }))
	metadata, err := img.Metadata()
	require.NoError(t, err)
	require.Nil(t, metadata)
	signature, err := img.Signature()
	require.NoError(t, err)
	require.Nil(t, signature)
	require.Empty(t, img.Ramdisks())
}

func TestReadErrorsAreNotTakenForBadFiles(t *testing.T) {
	noLeak(t)
	broken := errors.New("disk on fire")
	whole := golden(t, "p256.eif")
	for at := range int64(len(whole)) {
		r := &faulty{b: whole, at: at, err: broken}
		img, err := Open(r, int64(len(whole)))
		if err == nil {
			_, err = img.Measure(t.Context())
		}
		require.ErrorIs(t, err, broken, at)
		require.NotErrorIs(t, err, ErrFormat)
	}
}

// faulty fails to read the byte at one place.
type faulty struct {
	b   []byte
	at  int64
	err error
}

func (f *faulty) ReadAt(p []byte, off int64) (int, error) {
	n, err := bytes.NewReader(f.b).ReadAt(p, off)
	if off <= f.at && f.at < off+int64(n) {
		return int(f.at - off), f.err
	}
	return n, err
}

func TestKindsAndArchitecturesHaveNames(t *testing.T) {
	require.Equal(t, "kernel, command line, ramdisk, signature, metadata, invalid, unknown kind 77", strings.Join([]string{
		SectionKernel.String(), SectionCmdline.String(), SectionRamdisk.String(), SectionSignature.String(),
		SectionMetadata.String(), SectionInvalid.String(), SectionKind(77).String()}, ", "))
}
