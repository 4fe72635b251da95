package hypervisor

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash/crc32"
	"os"
	"testing"

	"github.com/nesim/nesim/eif"
	"github.com/stretchr/testify/require"
)

func TestSignedImages(t *testing.T) {
	signed, err := os.ReadFile("../../eif/testdata/p384.eif")
	require.NoError(t, err)
	test(t, func(h *host) {
		uid := h.ready(signed)
		_, err := h.EnclaveStart(uid, 0, 0)
		require.NoError(t, err)
		status, _ := h.Slot(uid)
		require.NotNil(t, status.Measurements.PCR8)
	})
	test(t, func(h *host) {
		other := bytes.Clone(signed)
		other[eif.HeaderSize+eif.SectionHeaderSize] ^= 1 // in the kernel
		crc := crc32.ChecksumIEEE(append(bytes.Clone(other[:eif.HeaderSize-4]), other[eif.HeaderSize:]...))
		binary.BigEndian.PutUint32(other[eif.HeaderSize-4:], crc)
		uid := h.ready(other)
		_, err := h.EnclaveStart(uid, 0, 0)
		require.NoError(t, err)
		status, _ := h.Slot(uid)
		require.ErrorIs(t, status.Unbootable, eif.ErrSignature)
	})
}

// FuzzTakeImage puts any bytes where the image is looked for: what is taken is what package eif makes of the same
// bytes, and what is refused is still there.
func FuzzTakeImage(f *testing.F) {
	good := newPicture(f, 3000).eif
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(append(bytes.Clone(good), "and more"...))
	f.Add([]byte{})
	for _, name := range []string{"two", "four", "p256", "arm"} {
		b, err := os.ReadFile("../../eif/testdata/" + name + ".eif")
		require.NoError(f, err)
		f.Add(b)
	}
	r := newRAM(f, 16*mib)
	from := &donation{mem: r, regions: []region{{r.at(5), 6 * mib}, {r.base, 6 * mib}}, size: 12 * mib}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = b[:min(len(b), 4*mib)]
		require.NoError(t, r.Zero(r.base, r.size))
		require.NoError(t, from.writeAt(b, imageOffset))
		img, got, err := takeImage(context.Background(), from)
		if err != nil {
			back := make([]byte, len(b))
			_, readErr := from.ReadAt(back, imageOffset)
			require.NoError(t, readErr)
			require.True(t, bytes.Equal(b, back), "refused and not given back: %v", err)
			return
		}
		defer img.close()
		padded := append(bytes.Clone(b), make([]byte, 4*mib-len(b))...) // zeroes may end an image
		plain, err := eif.Open(bytes.NewReader(padded), img.size)
		require.NoError(t, err)
		want, err := plain.Measure(context.Background())
		require.NoError(t, err)
		require.Equal(t, want, got)
		all := make([]byte, img.size)
		_, err = img.ReadAt(all, 0)
		require.NoError(t, err)
		require.True(t, bytes.Equal(padded[:img.size], all))
		require.NoError(t, from.clear(imageOffset, img.size))
		require.True(t, r.zeroed(t))
	})
}
