package eif

import (
	"context"
	"crypto/sha512"
	"io"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// BenchmarkMeasure measures an image of 256 MiB, most of it application, from a file in the page cache, each time
// followed by one plain SHA-384 over the same bytes in memory, and one that reads the file as sha384sum does. ratio
// and file-ratio are the best time of the first over the best times of these two: on a busy machine a mean would say
// more about the other programs.
func BenchmarkMeasure(b *testing.B) {
	const size = 256 << 20
	f, err := os.CreateTemp(b.TempDir(), "eif")
	require.NoError(b, err)
	defer f.Close()
	_, err = Build(context.Background(), f, BuildSpec{
		Kernel:   io.NewSectionReader(zeros{}, 0, 16<<20),
		Metadata: []byte("{}"),
		Ramdisks: []io.Reader{
			io.NewSectionReader(zeros{}, 0, 4<<20), io.NewSectionReader(zeros{}, 0, size-20<<20),
		},
	})
	require.NoError(b, err)
	info, err := f.Stat()
	require.NoError(b, err)
	data := make([]byte, info.Size())
	_, err = f.ReadAt(data, 0)
	require.NoError(b, err)

	measure, plain, read := time.Hour, time.Hour, time.Hour
	b.SetBytes(info.Size())
	for b.Loop() {
		start := time.Now()
		img, err := Open(f, info.Size())
		if err == nil {
			_, err = img.Measure(context.Background())
		}
		measure = min(measure, time.Since(start))
		require.NoError(b, err)

		b.StopTimer()
		start = time.Now()
		sha512.Sum384(data)
		plain = min(plain, time.Since(start))

		start = time.Now()
		h := sha512.New384()
		_, err = io.CopyBuffer(struct{ io.Writer }{h}, io.NewSectionReader(f, 0, info.Size()), make([]byte, 256<<10))
		read = min(read, time.Since(start))
		require.NoError(b, err)
		b.StartTimer()
	}
	b.ReportMetric(measure.Seconds()/plain.Seconds(), "ratio")
	b.ReportMetric(measure.Seconds()/read.Seconds(), "file-ratio")
}
