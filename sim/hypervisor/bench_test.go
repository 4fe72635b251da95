package hypervisor

import (
	"context"
	"crypto/sha512"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// BenchmarkTakeImage is what a start costs before the VM: moving 256 MiB out of the parent's memory, checking and
// measuring them. It compares that with a bare copy into a memfd and one SHA-384 over the same bytes, in turn.
func BenchmarkTakeImage(b *testing.B) {
	p := newPicture(b, 256*mib)
	size := int64(len(p.eif))
	r := newRAM(b, 320*mib)
	from := &donation{mem: r, regions: []region{{r.base, r.size}}, size: int64(r.size)}
	var take, bare time.Duration
	b.SetBytes(size)
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		require.NoError(b, from.writeAt(p.eif, imageOffset))
		began := time.Now()
		copyAndHash(b, from, size)
		bare += time.Since(began)
		b.StartTimer()

		began = time.Now()
		img, _, err := takeImage(context.Background(), from)
		took := time.Since(began)
		b.StopTimer()
		require.NoError(b, err)
		img.close()
		take += took
		b.StartTimer()
	}
	b.ReportMetric(float64(take)/float64(bare), "x-copy+sha384")
}

func copyAndHash(b *testing.B, from *donation, size int64) {
	f, err := memfd("bare")
	require.NoError(b, err)
	defer f.Close()
	h, buf := sha512.New384(), make([]byte, copyChunk)
	for off := int64(0); off < size; off += copyChunk {
		p := buf[:min(copyChunk, size-off)]
		if _, err := from.ReadAt(p, imageOffset+off); err != nil {
			b.Fatal(err)
		}
		if _, err := f.WriteAt(p, off); err != nil {
			b.Fatal(err)
		}
	}
	for off := int64(0); off < size; off += copyChunk {
		p := buf[:min(copyChunk, size-off)]
		if _, err := f.ReadAt(p, off); err != nil {
			b.Fatal(err)
		}
		h.Write(p)
	}
	h.Sum(nil)
}
