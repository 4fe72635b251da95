package conformance

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/sim/nedriver"
	"github.com/nesim/nesim/sim/primary"
)

// TestBothDriversAnswerAlike boots a primary VM whose enclaves are scripted: what the drivers say, how fast, and
// whether every end of an enclave is told.
func TestBothDriversAnswerAlike(t *testing.T) {
	dir := tempDir(t)
	image, data := tinyImage(t, dir)
	s := newScripted(t, dir)
	v := boot(t, primary.Config{
		PCISocket: s.socket, CPUs: 6, MemoryMiB: 4096, HugeMiB: 320, HugeGiB: 1, FarMiB: 128,
	}, buildGuest(t, dir), image)

	t.Run("the error table", func(t *testing.T) {
		var linux []Row
		require.NoError(t, json.Unmarshal([]byte(v.must(t, "/root/guest table /root/tiny.eif")), &linux))
		ours := Table(newUserSpace(t, s.socket), data)
		var text strings.Builder
		differences := WriteTable(&text, "nitro_enclaves.ko", "nedriver", linux, ours)
		record(t, "error-table.txt", text.String())
		require.Zero(t, differences)
		for code := nedriver.NEErrVCPUAlreadyUsed; code <= nedriver.NEErrInvalidEnclaveCID; code++ {
			if code != nedriver.NEErrVCPUInvalidCPUCore { // see Table
				require.Contains(t, text.String(), code.Name())
			}
		}
	})
	t.Run("no end of 100 enclaves is lost", func(t *testing.T) {
		before := s.exits.Load()
		s.crashing.Store(true)
		text := v.must(t, "/root/guest storm /root/tiny.eif 100")
		require.EqualValues(t, 100, s.exits.Load()-before)
		require.Contains(t, text, "100 enclaves crashed, 100 hang-ups")
		record(t, "storm.txt", text)
	})
	t.Run("how long a command takes", func(t *testing.T) {
		record(t, "latency.txt", v.must(t, "/root/guest latency 200"))
	})
	require.NoError(t, v.finish())
	require.Empty(t, s.hypervisor.Slots())
}
