package eif

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

func spec() BuildSpec {
	return BuildSpec{
		Kernel:   strings.NewReader("kernel"),
		Cmdline:  "panic=1",
		Ramdisks: []io.Reader{strings.NewReader("init"), strings.NewReader("app")},
		Metadata: []byte("{}"),
	}
}

func build(t testing.TB, s *Signer) ([]byte, Measurements) {
	var f file
	spec := spec()
	spec.Signer = s
	m, err := Build(context.Background(), &f, spec)
	require.NoError(t, err)
	return f.b, m
}

func TestBuildStreamsInputsOfAnySize(t *testing.T) {
	parts := sized(3*chunkSize+1, 7, 2, chunkSize, 20*chunkSize+3)
	parts[1].data = []byte("panic=1")
	var f file
	m, err := Build(t.Context(), &f, BuildSpec{
		Kernel:   iotest.OneByteReader(bytes.NewReader(parts[0].data)),
		Cmdline:  string(parts[1].data),
		Metadata: parts[2].data,
		Ramdisks: []io.Reader{iotest.HalfReader(bytes.NewReader(parts[3].data)), bytes.NewBuffer(parts[4].data)},
	})
	require.NoError(t, err)
	want := assemble(parts, func(h *Header) { h.DefaultMemory, h.DefaultCPUs = 1<<30, 2 })
	require.True(t, bytes.Equal(want, f.b))
	require.Equal(t, plainMeasure(parts), m)
}

func TestBuildRefusesWhatCannotBoot(t *testing.T) {
	noLeak(t)
	tests := map[string]struct {
		edit func(*BuildSpec)
		want string
	}{
		"no kernel":       {func(s *BuildSpec) { s.Kernel = nil }, "needs a kernel"},
		"empty kernel":    {func(s *BuildSpec) { s.Kernel = strings.NewReader("") }, "the kernel is empty"},
		"no ramdisk":      {func(s *BuildSpec) { s.Ramdisks = nil }, "needs a ramdisk"},
		"30 ramdisks":     {func(s *BuildSpec) { s.Ramdisks = make([]io.Reader, 30) }, "30 ramdisks are too many"},
		"long cmdline":    {func(s *BuildSpec) { s.Cmdline = strings.Repeat("x", 2048) }, "at most 2047"},
		"zero in cmdline": {func(s *BuildSpec) { s.Cmdline = "a\x00b" }, "zero byte"},
		"long metadata":   {func(s *BuildSpec) { s.Metadata = make([]byte, MaxMetadata+1) }, "is the limit"},
		"other processor": {func(s *BuildSpec) { s.Arch = "m68k" }, `architecture "m68k"`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := spec()
			tt.edit(&s)
			var f file
			_, err := Build(t.Context(), &f, s)
			require.ErrorContains(t, err, tt.want)
			require.Error(t, openErr(f.b))
		})
	}
}

func TestBuildReportsFailingInputsAndOutputs(t *testing.T) {
	noLeak(t)
	broken := errors.New("disk full")
	s := spec()
	s.Ramdisks[1] = iotest.ErrReader(broken)
	var f file
	_, err := Build(t.Context(), &f, s)
	require.ErrorIs(t, err, broken)
	require.ErrorContains(t, err, "ramdisk")
	require.Error(t, openErr(f.b))

	for after := range 12 { // 6 sections, 6 headers, the file's header
		s := spec()
		s.Signer = signer(t, ecKey(t, elliptic.P256()))
		_, err := Build(t.Context(), &failing{left: after, err: broken}, s)
		require.ErrorIs(t, err, broken, after)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = Build(ctx, &f, spec())
	require.ErrorIs(t, err, context.Canceled)
}

// failing is a writer that takes a few writes.
type failing struct {
	left int
	err  error
}

func (f *failing) WriteAt(p []byte, _ int64) (int, error) {
	if f.left == 0 {
		return 0, f.err
	}
	f.left--
	return len(p), nil
}
