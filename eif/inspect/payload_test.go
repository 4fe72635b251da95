package inspect

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/stretchr/testify/require"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"

	"github.com/nesim/nesim/qemu/setup"
)

// bzImage makes a bzImage of boot protocol 2.15 with a payload.
func bzImage(packed []byte) []byte {
	const sectors, offset = 2, 16
	image := make([]byte, (sectors+1)*sectorSize+offset, (sectors+1)*sectorSize+offset+len(packed))
	copy(image[setupMagicOffset:], "HdrS")
	image[setupSectsOffset] = sectors
	binary.LittleEndian.PutUint16(image[setupProtocolOffset:], 0x20f)
	binary.LittleEndian.PutUint32(image[payloadOffset:], offset)
	binary.LittleEndian.PutUint32(image[payloadLength:], uint32(len(packed)))
	return append(image, packed...)
}

// kernelText is what a kernel unpacks to, with the parameter's name or without it, where a chunk of the search ends.
func kernelText(takes bool) []byte {
	text := make([]byte, 3*searchChunk)
	random := rand.NewChaCha8([32]byte{})
	for at := 0; at < len(text); at += 64 { // half of it random, so that it does not compress to nothing
		_, _ = random.Read(text[at : at+32])
	}
	if takes {
		copy(text[searchChunk-7:], "\x00"+deviceParameter+"\x00")
	}
	return text
}

// packs are the ways that a kernel may be compressed in, but for the size behind the stream.
var packs = map[string]func(io.Writer) (io.WriteCloser, error){
	"gzip": func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil },
	"zstd": func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) },
	"xz": func(w io.Writer) (io.WriteCloser, error) {
		return xz.WriterConfig{CheckSum: xz.CRC32}.NewWriter(w)
	},
	"lzma": func(w io.Writer) (io.WriteCloser, error) { return lzma.NewWriter(w) },
	"lz4": func(w io.Writer) (io.WriteCloser, error) {
		z := lz4.NewWriter(w)
		return z, z.Apply(lz4.LegacyOption(true))
	},
}

func packKernel(t testing.TB, way string, unpacked []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := packs[way](&b)
	require.NoError(t, err)
	_, err = z.Write(unpacked)
	require.NoError(t, err)
	require.NoError(t, z.Close())
	if way != "gzip" {
		b.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(unpacked))))
	}
	return b.Bytes()
}

func takes(t testing.TB, kernel []byte) (bool, error) {
	return TakesCmdlineDevices(t.Context(), bytes.NewReader(kernel), int64(len(kernel)))
}

func TestAKernelShowsWhetherItTakesDevicesFromItsCommandLine(t *testing.T) {
	for way := range packs {
		t.Run(way, func(t *testing.T) {
			for _, want := range []bool{true, false} {
				got, err := takes(t, bzImage(packKernel(t, way, kernelText(want))))
				require.NoError(t, err)
				require.Equal(t, want, got)
			}
		})
	}
	t.Run("xz with the filter for x86, as kernels have it", func(t *testing.T) {
		for _, want := range []bool{true, false} {
			packed := packKernel(t, "xz", kernelText(want))
			data := packed[xzStreamHeader+(int(packed[xzStreamHeader])+1)*4:]
			header := "\x02\x01\x04\x00\x21\x01\x16\x00 crc" // two filters: x86, LZMA2
			got, err := takes(t, bzImage(append([]byte(magicXZ+"\x00\x01 crc"+header), data...)))
			require.NoError(t, err)
			require.Equal(t, want, got)
		}
	})
	t.Run("ELF vmlinux", func(t *testing.T) {
		for _, want := range []bool{true, false} {
			got, err := takes(t, append(vmlinux(elf.EM_X86_64, true), kernelText(want)...))
			require.NoError(t, err)
			require.Equal(t, want, got)
		}
	})
	t.Run("those that images are built with", func(t *testing.T) {
		debian, err := setup.FindDebianKernel()
		require.NoError(t, err)
		want := map[string]bool{debian.Image: false}
		if nitro, err := setup.FindNitroKernel(); err == nil { // where it was built
			want[nitro.Image] = true
		}
		for path, want := range want {
			image, err := os.ReadFile(path)
			require.NoError(t, err)
			got, err := takes(t, image)
			require.NoError(t, err)
			require.Equal(t, want, got, path)
		}
	})
}

func TestAKernelThatCannotBeDecided(t *testing.T) {
	good := bzImage(packKernel(t, "gzip", kernelText(false)))
	with := func(change func(k []byte)) []byte {
		k := bytes.Clone(good)
		change(k)
		return k
	}
	for what, test := range map[string]struct {
		kernel []byte
		want   string
	}{
		"unknown compression":           {bzImage([]byte("something else")), "compressed in a known way"},
		"compression without a library": {bzImage([]byte("\x89LZO\x00\r\n\x1a\n and so on")), "lzo: nesim cannot unpack this"},
		"truncated file":                {good[:len(good)-1000], "its compressed part does not lie within the file"},
		"truncated stream": {with(func(k []byte) {
			binary.LittleEndian.PutUint32(k[payloadLength:], binary.LittleEndian.Uint32(k[payloadLength:])-1000)
		}), "unexpected EOF"},
		"damaged stream": {with(func(k []byte) { clear(k[len(k)/2:]) }), "unpack the kernel: "},
		"no payload":     {bzImage(nil), "its compressed part does not lie within the file"},
		"payload beyond 4 GiB": {with(func(k []byte) {
			binary.LittleEndian.PutUint32(k[payloadOffset:], 1<<32-1)
			binary.LittleEndian.PutUint32(k[payloadLength:], 1<<32-1)
		}), "its compressed part does not lie within the file"},
		"old protocol":      {with(func(k []byte) { k[setupProtocolOffset] = 7 }), "boot protocol 2.07"},
		"short header":      {good[:0x230], "read the kernel's header: EOF"},
		"not a kernel":      {[]byte("text"), "of a format that cannot be read"},
		"xz without blocks": {bzImage([]byte(magicXZ + strings.Repeat("\x00", 32))), "xz: the stream has no block"},
		"xz that ends":      {bzImage([]byte(magicXZ + "\x00\x01")), "xz: unexpected EOF"},
		"xz with a large window": {bzImage([]byte(magicXZ + "\x00\x01    " + "\x02\x00\x21\x01\x28" + strings.Repeat("\x00", 32))),
			"asks for a dictionary of 4096 MiB, 128 are the limit"},
	} {
		t.Run(what, func(t *testing.T) {
			_, err := takes(t, test.kernel)
			require.ErrorContains(t, err, test.want)
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

// A kernel of a few hundred KiB that unpacks to ever more is given up at the limit.
func TestAKernelThatIsABomb(t *testing.T) {
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b, zstd.WithEncoderLevel(zstd.SpeedFastest))
	require.NoError(t, err)
	zeroes := make([]byte, 1<<20)
	for range maxKernel>>20 + 1 {
		_, err = z.Write(zeroes)
		require.NoError(t, err)
	}
	require.NoError(t, z.Close())
	b.WriteString("size")
	_, err = takes(t, bzImage(b.Bytes()))
	require.EqualError(t, err, "unpack the kernel: it unpacks to more than 256 MiB")
}

func TestReadingAKernelEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	k := bzImage(packKernel(t, "gzip", kernelText(false)))
	_, err := TakesCmdlineDevices(ctx, bytes.NewReader(k), int64(len(k)))
	require.ErrorIs(t, err, context.Canceled)
}

// FuzzTakesCmdlineDevices reads an arbitrary kernel: it must end, with an error of one line if it cannot be read.
func FuzzTakesCmdlineDevices(f *testing.F) {
	for way := range packs {
		f.Add(bzImage(packKernel(f, way, []byte("a kernel with "+deviceParameter))))
	}
	f.Add(bzImage([]byte(magicXZ + "\x00\x01    " + "\x02\x00\x21\x01\x16" + strings.Repeat("\x00", 32))))
	f.Add(vmlinux(elf.EM_X86_64, true))
	f.Fuzz(func(t *testing.T, data []byte) {
		k := IdentifyKernel(bytes.NewReader(data), int64(len(data)))
		if takes, err := takes(t, data); err != nil {
			require.NotContains(t, err.Error(), "\n")
		} else if takes {
			require.NotEqual(t, UnknownKernel, k.Format)
		}
	})
}
