package eif

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"encoding/asn1"
	"encoding/json"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// file is an io.WriterAt in memory.
type file struct{ b []byte }

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	if end := int(off) + len(p); end > len(f.b) {
		f.b = append(f.b, make([]byte, end-len(f.b))...)
	}
	return copy(f.b[off:], p), nil
}

func open(t testing.TB, b []byte) *Image {
	img, err := Open(bytes.NewReader(b), int64(len(b)))
	require.NoError(t, err)
	return img
}

func readAll(t testing.TB, r io.Reader) []byte {
	b, err := io.ReadAll(r)
	require.NoError(t, err)
	return b
}

func golden(t testing.TB, name string) []byte {
	b, err := os.ReadFile(filepath.Join("testdata", name))
	require.NoError(t, err)
	return b
}

var goldens = []string{"two", "arm", "four", "p256", "p384", "p521"}

func TestMeasuresAsEIFBuildDoes(t *testing.T) {
	for _, name := range goldens {
		t.Run(name, func(t *testing.T) {
			m, err := open(t, golden(t, name+".eif")).Measure(context.Background())
			require.NoError(t, err)
			got, err := json.MarshalIndent(m, "", "  ")
			require.NoError(t, err)
			require.Equal(t, string(golden(t, name+".json")), string(got)+"\n")
		})
	}
}

func TestBuildsTheSameBytesAsEIFBuild(t *testing.T) {
	for _, name := range goldens {
		t.Run(name, func(t *testing.T) {
			want := golden(t, name+".eif")
			img := open(t, want)
			cmdline, err := img.Cmdline()
			require.NoError(t, err)
			metadata, err := img.Metadata()
			require.NoError(t, err)
			h := img.Header()
			spec := BuildSpec{Arch: h.Arch(), Kernel: img.Kernel(), Cmdline: cmdline, Metadata: metadata}
			for _, r := range img.Ramdisks() {
				spec.Ramdisks = append(spec.Ramdisks, r)
			}
			if s, err := img.Signature(); s != nil {
				require.NoError(t, err)
				spec.Signer, err = NewSigner(replay{s}, s.CertificatePEM)
				require.NoError(t, err)
			}

			var out file
			built, err := Build(context.Background(), &out, spec)
			require.NoError(t, err)
			require.Equal(t, want, out.b)
			measured, err := img.Measure(context.Background())
			require.NoError(t, err)
			require.True(t, built.Equal(measured))
		})
	}
}

// replay is a key that makes the signature it has made before: ECDSA's are random.
type replay struct{ s *Signature }

func (r replay) Public() crypto.PublicKey { return r.s.Certificate.PublicKey }

func (r replay) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	raw := r.s.message.Signature
	half := len(raw) / 2
	return asn1.Marshal(struct{ R, S *big.Int }{
		new(big.Int).SetBytes(raw[:half]), new(big.Int).SetBytes(raw[half:]),
	})
}

func TestEncodesMetadataAsEIFBuildDoes(t *testing.T) {
	tests := map[string]Metadata{
		"two": {
			ImageName: "bzImage", ImageVersion: "1.0", Build: BuildMetadata{
				BuildTime: "2024-02-29T12:34:56.789+00:00", BuildTool: "eif_build", BuildToolVersion: "0.3.1",
				OperatingSystem: "OS", KernelVersion: "kernel"},
		},
		"arm": {
			// eif_build takes the name for the version, too.
			ImageName: `näme "q"`, ImageVersion: `näme "q"`, Build: BuildMetadata{
				BuildTime: "2024-02-29T12:34:56.789+00:00", BuildTool: "t", BuildToolVersion: "9",
				OperatingSystem: "Linux", KernelVersion: "6.12"},
			Custom: golden(t, "custom.json"),
		},
	}
	for name, m := range tests {
		want, err := open(t, golden(t, name+".eif")).Metadata()
		require.NoError(t, err)
		got, err := m.Encode()
		require.NoError(t, err)
		require.Equal(t, string(want), string(got), name)
		parsed, err := ParseMetadata(want)
		require.NoError(t, err)
		require.Equal(t, m.ImageName, parsed.ImageName)
		require.Equal(t, m.Build, parsed.Build)
		require.Equal(t, "null", string(parsed.DockerInfo))
		again, err := parsed.Encode()
		require.NoError(t, err)
		require.Equal(t, string(want), string(again))
	}
}

func TestGoldenImagesShowTheirParts(t *testing.T) {
	img := open(t, golden(t, "four.eif"))
	h := img.Header()
	require.Equal(t, uint16(4), h.Version)
	require.Equal(t, ArchX86_64, h.Arch())
	require.Equal(t, uint64(1<<30), h.DefaultMemory)
	require.Equal(t, uint64(2), h.DefaultCPUs)
	require.Len(t, img.Sections(), 7)
	require.Equal(t, int64(900), img.Kernel().Size())
	require.Len(t, img.Ramdisks(), 4)
	require.Len(t, readAll(t, img.Ramdisks()[3]), 513)
	cmdline, err := img.Cmdline()
	require.NoError(t, err)
	require.Equal(t, "x", cmdline)
	s, err := img.Signature()
	require.NoError(t, err)
	require.Nil(t, s)

	h = open(t, golden(t, "arm.eif")).Header()
	require.Equal(t, ArchAArch64, h.Arch())

	s, err = open(t, golden(t, "p521.eif")).Signature()
	require.NoError(t, err)
	require.Equal(t, "p521", s.Certificate.Subject.CommonName)
	require.IsType(t, (*ecdsa.PublicKey)(nil), s.Certificate.PublicKey)
}
