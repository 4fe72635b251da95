package eif

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// plainMeasure follows the specification's words with everything in memory.
func plainMeasure(parts []part) Measurements {
	var image, boot, app []byte
	ramdisks := 0
	for _, p := range parts {
		switch p.kind {
		case SectionKernel, SectionCmdline:
			image, boot = append(image, p.data...), append(boot, p.data...)
		case SectionRamdisk:
			image = append(image, p.data...)
			if ramdisks == 0 {
				boot = append(boot, p.data...)
			} else {
				app = append(app, p.data...)
			}
			ramdisks++
		}
	}
	pcr := func(b []byte) Digest {
		content := sha512.Sum384(b)
		return sha512.Sum384(append(make([]byte, 48), content[:]...))
	}
	return Measurements{PCR0: pcr(image), PCR1: pcr(boot), PCR2: pcr(app)}
}

func TestMeasuresInEveryOrderAndSize(t *testing.T) {
	const c = chunkSize
	tests := map[string][]part{
		"as built":        simple(),
		"chunk borders":   sized(c-1, 5, 0, c, c+1),
		"many chunks":     sized(9*c+7, 100, 3*c, 10*c, 11*c+1),
		"empty ramdisks":  sized(1, 0, 0, 0, 0),
		"one ramdisk":     simple()[:4],
		"no ramdisk":      simple()[:3],
		"cmdline last":    reorder(sized(c, 10, 3, c+5, 2*c), 0, 3, 4, 2, 1),
		"cmdline between": reorder(sized(c, 10, 3, c+5, 2*c), 0, 3, 1, 4, 2),
		"cmdline first":   reorder(simple(), 1, 0, 3, 2, 4),
	}
	for name, parts := range tests {
		t.Run(name, func(t *testing.T) {
			m, err := open(t, assemble(parts, nil)).Measure(t.Context())
			require.NoError(t, err)
			require.Equal(t, plainMeasure(parts), m)
		})
	}
}

func sized(sizes ...int) []part {
	parts := simple()
	for i := range parts {
		parts[i].data = pattern(sizes[i], byte(2*i+3))
	}
	return parts
}

func reorder(parts []part, order ...int) (out []part) {
	for _, i := range order {
		out = append(out, parts[i])
	}
	return out
}

func TestEveryFlippedBitIsFound(t *testing.T) {
	whole := golden(t, "two.eif")
	for i := range whole {
		for bit := range 8 {
			b := bytes.Clone(whole)
			b[i] ^= 1 << bit
			img, err := Open(bytes.NewReader(b), int64(len(b)))
			if err != nil {
				require.ErrorIs(t, err, ErrFormat)
				continue
			}
			_, err = img.Measure(t.Context())
			require.ErrorIs(t, err, ErrCRC, "bit %d of byte %d", bit, i)
		}
	}
}

func TestCheckStillMeasuresADamagedImage(t *testing.T) {
	b := golden(t, "p384.eif")
	b[HeaderSize-1] ^= 1
	r, err := open(t, b).Check(t.Context())
	require.NoError(t, err)
	require.ErrorIs(t, r.Err(), ErrCRC)
	require.ErrorIs(t, r.CRCErr, ErrCRC)
	require.NoError(t, r.SignatureErr)
	require.NotNil(t, r.Measurements.PCR8)
	want, err := open(t, golden(t, "p384.eif")).Measure(t.Context())
	require.NoError(t, err)
	require.True(t, want.Equal(r.Measurements))
}

func TestMeasureReadsEveryByteOnce(t *testing.T) {
	whole := assemble(append(sized(3*chunkSize, 9, 50, 5, chunkSize), part{SectionSignature, pattern(999, 3)}), nil)
	r := &counting{b: whole, reads: make([]int, len(whole))}
	img, err := Open(r, int64(len(whole)))
	require.NoError(t, err)
	_, err = img.Measure(t.Context())
	require.ErrorIs(t, err, ErrSignature)
	for i, n := range r.reads {
		require.Equal(t, 1, n, "byte %d of %d", i, len(whole))
	}
}

type counting struct {
	sync.Mutex
	b     []byte
	reads []int
}

func (c *counting) ReadAt(p []byte, off int64) (int, error) {
	n, err := bytes.NewReader(c.b).ReadAt(p, off)
	c.Lock()
	defer c.Unlock()
	for i := range n {
		c.reads[int(off)+i]++
	}
	return n, err
}

// zeros is an image of any size whose body is made of zeros: nothing of it is in memory.
type zeros struct{ head []byte }

func (z zeros) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	if off < int64(len(z.head)) {
		copy(p, z.head[off:])
	}
	return len(p), nil
}

// bigImage returns an image with a kernel of n zeros after some small sections.
func bigImage(n int64) (io.ReaderAt, int64) {
	sections := []Section{{Kind: SectionCmdline}, {Kind: SectionMetadata}, {Kind: SectionKernel, Size: n}}
	h := Header{Magic: Magic, Version: CurrentVersion, NumSections: uint16(len(sections))}
	var body []byte
	for i, s := range sections {
		h.SectionOffsets[i], h.SectionSizes[i] = uint64(HeaderSize+len(body)), uint64(s.Size)
		body = append(body, s.header().bytes()...)
	}
	crc := crc32.NewIEEE()
	_, _ = io.CopyN(crc, io.NewSectionReader(zeros{}, 0, n), n)
	h.CRC32 = fileCRC(&h, sections, []uint32{0, 0, crc.Sum32()})
	head := append(h.bytes(), body...)
	return zeros{head}, int64(len(head)) + n
}

func TestMeasureTakesLittleMemory(t *testing.T) {
	r, size := bigImage(96 << 20)
	img, err := Open(r, size)
	require.NoError(t, err)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err = img.Measure(t.Context())
	runtime.ReadMemStats(&after)
	require.NoError(t, err)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(6<<20))
}

func TestMeasureEndsWhenItsContextDoes(t *testing.T) {
	noLeak(t)
	ctx, cancel := context.WithCancel(t.Context())
	r, size := bigImage(8 << 20)
	img, err := Open(readHook{r, func(off int64) {
		if off > 1<<20 {
			cancel()
		}
	}}, size)
	require.NoError(t, err)
	_, err = img.Measure(ctx)
	require.ErrorIs(t, err, context.Canceled)
}

type readHook struct {
	io.ReaderAt
	hook func(off int64)
}

func (r readHook) ReadAt(p []byte, off int64) (int, error) {
	r.hook(off)
	return r.ReaderAt.ReadAt(p, off)
}

func TestManyMeasureOneImageAtOnce(t *testing.T) {
	noLeak(t)
	img := open(t, golden(t, "p256.eif"))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := img.Measure(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestDigestsAreText(t *testing.T) {
	d := extend(nil)
	text, err := d.MarshalText()
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf("%x", d[:]), string(text))
	var back Digest
	require.NoError(t, back.UnmarshalText(text))
	require.Equal(t, d, back)
	require.Error(t, back.UnmarshalText(text[1:]))
	require.Error(t, back.UnmarshalText(append([]byte("zz"), text[2:]...)))

	m := Measurements{PCR0: d}
	b, err := json.Marshal(m)
	require.NoError(t, err)
	require.NotContains(t, string(b), "PCR8")
	require.Contains(t, string(b), `{"HashAlgorithm":"Sha384 { ... }","PCR0":"`)
	require.False(t, m.Equal(Measurements{PCR0: d, PCR8: &d}))
	require.True(t, m.Equal(Measurements{PCR0: d}))
}

func TestCombinedCRCsAreThoseOfTheWhole(t *testing.T) {
	b := pattern(3000, 7)
	for _, cut := range []int{0, 1, 2, 7, 1024, 2999, 3000} {
		got := combineCRC(crc32.ChecksumIEEE(b[:cut]), crc32.ChecksumIEEE(b[cut:]), int64(len(b)-cut))
		require.Equal(t, crc32.ChecksumIEEE(b), got, cut)
	}
}
