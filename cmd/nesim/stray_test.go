package main

import (
	"encoding/binary"
	"encoding/json"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/eif"
)

// The hypervisor goes by the header's table; AWS's reader of describe-eif, which walks through the file, says of such an
// image "Found invalid EIF section".
func TestAnImageWithBytesThatBelongToNoSectionRuns(t *testing.T) {
	u := newUser(t)
	hello := readFile(t, u.hello())
	var h eif.Header
	_, err := binary.Decode(hello, binary.BigEndian, &h)
	require.NoError(t, err)
	for i := range h.NumSections {
		h.SectionOffsets[i] += 512
	}
	header := func() []byte {
		b, err := binary.Append(nil, binary.BigEndian, &h)
		require.NoError(t, err)
		return b
	}
	sections := hello[eif.HeaderSize:]
	h.CRC32 = crc32.Update(crc32.ChecksumIEEE(header()[:eif.HeaderSize-4]), crc32.IEEETable, sections)
	path := filepath.Join(t.TempDir(), "stray.eif")
	require.NoError(t, os.WriteFile(path, slices.Concat(header(), make([]byte, 512), sections, make([]byte, 4096)), 0o600))

	described := func(path string) (d eif.Description, stderr string) {
		out, stderr, err := u.run("", "describe-eif", "--eif-path", path)
		require.NoError(t, err, stderr)
		require.NoError(t, json.Unmarshal([]byte(out), &d))
		return d, stderr
	}
	want, stderr := described(u.hello())
	require.Empty(t, stderr)
	got, stderr := described(path)
	require.Equal(t, want.Measurements, got.Measurements)
	require.Contains(t, stderr, "note: 4608 bytes of "+path+" belong to no section: the hypervisor skips them")

	u.must("run-enclave", "--eif-path", path, "--cpu-count", "2", "--memory", "256")
	list := u.enclaves()
	require.Len(t, list, 1)
	require.Equal(t, want.Measurements, list[0].Measurements)
	u.must("terminate-enclave", "--enclave-name", "stray")
}
