package hypervisor

import (
	"testing"

	"github.com/nesim/nesim/pcidev"
	"github.com/stretchr/testify/require"
)

// FuzzCommands runs any commands in any order: what the slots hold stays consistent, and nothing is left at the end.
func FuzzCommands(f *testing.F) {
	f.Add([]byte{0, 0, 2, 0, 3, 0, 3, 1, 5, 0, 6, 0, 1, 0})
	f.Add([]byte{0, 0, 0, 0, 2, 1, 2, 1, 2, 32, 4, 9, 3, 255, 5, 7, 7, 0, 8, 0, 6, 0})
	image := newPicture(f, 3000).eif
	r := newRAM(f, 256*mib)
	f.Fuzz(func(t *testing.T, program []byte) {
		v := &vmm{}
		hv := New(Config{VMM: v, VCPUs: 16})
		attached, err := hv.Attach(r, func() {})
		require.NoError(t, err)
		s := attached.(*Session)
		_, err = r.file.WriteAt(image, imageOffset)
		require.NoError(t, err)
		var uids []uint64
		for program = program[:min(len(program), 128)]; len(program) >= 2; program = program[2:] {
			op, arg := program[0], program[1]
			uid := uint64(arg)
			if len(uids) > 0 {
				uid = uids[int(arg>>5)%len(uids)]
			}
			switch op % 9 {
			case 0:
				if uid, err := s.SlotAlloc(); err == nil {
					uids = append(uids, uid)
				}
			case 1:
				_ = s.SlotFree(uid)
			case 2:
				_ = s.SlotAddMem(uid, r.at(uint64(arg)), uint64(op)*mib)
			case 3:
				_ = s.SlotAddVCPU(uid, uint32(arg))
			case 4:
				_ = s.SlotAddBulkVCPUs(uid, uint64(arg&7))
			case 5:
				cid, err := s.EnclaveStart(uid, uint64(arg&31), uint64(op>>6))
				if vm := v.vm(cid); err == nil && arg&1 == 0 && vm != nil { // without an image nothing runs
					vm.end <- Exit{Reason: ExitKilled}
				}
			case 6:
				_ = s.EnclaveStop(uid)
			case 7:
				_, _ = s.NextSlot(uid)
			case 8:
				_ = s.Reset()
			}
			consistent(t, hv, s)
		}
		require.NoError(t, hv.Close())
		require.Empty(t, hv.Slots())
		require.Empty(t, hv.cids)
		require.Empty(t, s.vcpus)
	})
}

func consistent(t *testing.T, hv *Hypervisor, s *Session) {
	hv.mu.Lock()
	defer hv.mu.Unlock()
	require.LessOrEqual(t, len(hv.slots), DefaultSlots)
	require.Len(t, hv.slots, len(s.slots))
	vcpus, cids := 0, 0
	var regions []region
	for uid, sl := range hv.slots {
		require.Equal(t, uid, sl.uid)
		require.False(t, sl.busy)
		vcpus += len(sl.vcpus)
		for _, r := range sl.mem.regions {
			for _, other := range regions {
				require.False(t, r.overlaps(other))
			}
			regions = append(regions, r)
		}
		if sl.cid != 0 {
			cids++
			require.Same(t, sl, hv.cids[sl.cid])
		}
		require.Equal(t, sl.state != pcidev.StateInit, sl.cid != 0)
	}
	require.Len(t, s.vcpus, vcpus)
	require.Len(t, hv.cids, cids)
}
