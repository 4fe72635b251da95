package hypervisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nesim/nesim/eif"
	"github.com/nesim/nesim/pcidev"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestAnEnclaveLivesAndIsStopped(t *testing.T) {
	test(t, func(h *host) {
		p := newPicture(t, 5*mib)
		uid := h.ready(p.eif)
		require.NoError(t, h.SlotAddVCPU(uid, 3))
		cid, err := h.EnclaveStart(uid, 0, pcidev.EnclaveDebugMode)
		require.NoError(t, err)
		require.Greater(t, cid, uint64(3))

		m := h.vmm.vm(cid)
		require.Equal(t, p.kernel, m.kernel)
		require.Equal(t, p.initrd, m.initrd)
		require.Equal(t, cmdline, m.spec.Cmdline)
		require.Equal(t, p.measurements, m.spec.Measurements)
		require.Equal(t, uint64(64*mib), m.spec.MemoryBytes)
		require.Equal(t, 2, m.spec.CPUs)
		require.Equal(t, uid, m.spec.SlotUID)
		require.True(t, m.spec.Debug)
		require.True(t, h.ram.zeroed(t), "the parent keeps nothing of it")

		want := pcidev.SlotInfo{SlotUID: uid, EnclaveCID: cid, MemRegions: 1, MemSize: 64 * mib, NrVCPUs: 2, Flags: 1, State: pcidev.StateRunning}
		info, err := h.SlotInfo(uid)
		require.NoError(t, err)
		require.Equal(t, want, info)
		info, err = h.EnclaveGetSlot(cid)
		require.NoError(t, err)
		require.Equal(t, want, info)
		require.ErrorIs(t, h.SlotFree(uid), unix.EBUSY)

		require.NoError(t, h.EnclaveStop(uid))
		require.Equal(t, pcidev.StateStopped, h.state(uid))
		require.NoError(t, h.EnclaveStop(uid), "stopping twice is no error")
		require.Zero(t, h.notified(), "an end that was asked for is no event")
		status, _ := h.Slot(uid)
		require.Equal(t, ExitAsked, status.Exit.Reason)
		require.Equal(t, p.measurements, *status.Measurements)
		require.NoError(t, h.SlotFree(uid))
		_, err = h.SlotInfo(uid)
		require.ErrorIs(t, err, unix.ENOENT)
		require.Empty(t, h.vcpus)
		require.Equal(t, []EventKind{SlotAllocated, EnclaveStarting, EnclaveRunning, CommandRefused, EnclaveExited, SlotFreed}, h.kinds())
	})
}

func TestAnEndThatNobodyAskedForIsAnEvent(t *testing.T) {
	code := 7
	for _, exit := range []Exit{
		{Reason: ExitGuest, Code: &code},
		{Reason: ExitGuestPanic, Detail: "Attempted to kill init!"},
		{Reason: ExitKilled},
	} {
		t.Run(exit.Reason.String(), func(t *testing.T) {
			test(t, func(h *host) {
				uid := h.ready(newPicture(t, mib).eif)
				cid, err := h.EnclaveStart(uid, 0, 0)
				require.NoError(t, err)
				h.vmm.vm(cid).end <- exit
				require.Equal(t, 1, h.notified())
				require.Equal(t, pcidev.StateStopped, h.state(uid))
				status, _ := h.Slot(uid)
				require.Equal(t, exit, *status.Exit)
				require.Equal(t, time.Now(), status.EndedAt)
				_, err = h.EnclaveStart(uid, 0, 0)
				require.ErrorIs(t, err, unix.EBUSY, "a slot is for one enclave")
				require.NoError(t, h.EnclaveStop(uid), "the driver may not know of the end yet")
				require.NoError(t, h.SlotFree(uid))
			})
		})
	}
}

func TestAVMThatDiesDuringItsStart(t *testing.T) {
	test(t, func(h *host) {
		p := newPicture(t, 5*mib)
		uid := h.ready(p.eif)
		h.vmm.onStart = func(context.Context, VMSpec) error { return errors.New("QEMU ended at once: no accelerator") }
		_, err := h.EnclaveStart(uid, 0, 0)
		require.ErrorIs(t, err, unix.EIO)
		require.EqualError(t, h.SlotError(uid), "start the enclave's VM: QEMU ended at once: no accelerator")
		require.Equal(t, pcidev.StateInit, h.state(uid))
		require.Zero(t, h.notified())

		h.vmm.onStart = nil
		cid, err := h.EnclaveStart(uid, 0, 0)
		require.NoError(t, err, "the image is back, so it may be tried again")
		require.Equal(t, p.initrd, h.vmm.vm(cid).initrd)
	})
}

// AWS's tests of the driver start enclaves of empty memory, and expect that to succeed.
func TestAnEnclaveWhoseImageCannotBootRunsAndDoesNothing(t *testing.T) {
	good := newPicture(t, 5*mib).eif
	edit := func(f func(b []byte) []byte) []byte { return f(bytes.Clone(good)) }
	for name, c := range map[string]struct {
		image []byte
		text  string
	}{
		"nothing":         {nil, `begins with "\x00\x00\x00\x00"`},
		"bad magic":       {edit(func(b []byte) []byte { b[0] = 'E'; return b }), "begins with"},
		"truncated":       {good[:len(good)-mib], "damaged"},
		"one bit flipped": {edit(func(b []byte) []byte { b[3*mib] ^= 1; return b }), "damaged"},
		"for arm":         {edit(func(b []byte) []byte { b[7] |= 1; return b }), "arm64"},
		"section past everything": {edit(func(b []byte) []byte {
			b[sizesAt], b[eif.HeaderSize+4] = 0x7f, 0x7f
			return b
		}), "truncated"},
		"more than the memory": {newPicture(t, 60*mib).eif[:50*mib], "64 MiB of enclave memory are too little for the image, " +
			"which needs 69 MiB at least, as it begins at 8 MiB: give the enclave more memory"},
		"no kernel that can be started": {good, "not a kernel"},
	} {
		t.Run(name, func(t *testing.T) {
			test(t, func(h *host) {
				h.vmm.onStart = func(context.Context, VMSpec) error { return fmt.Errorf("%w: not a kernel", ErrUnbootable) }
				uid := h.ready(c.image)
				cid, err := h.EnclaveStart(uid, 20, 0)
				require.NoError(t, err)
				require.Equal(t, uint64(20), cid)
				require.Equal(t, pcidev.StateRunning, h.state(uid))
				require.True(t, h.ram.zeroed(t), "the memory is the enclave's")
				require.Nil(t, h.vmm.vm(cid))
				status, _ := h.Slot(uid)
				require.ErrorIs(t, status.Unbootable, ErrUnbootable)
				require.ErrorContains(t, status.Unbootable, c.text)
				require.NotContains(t, status.Unbootable.Error(), "\n")
				kinds := h.kinds()
				require.Equal(t, []EventKind{ImageUnbootable, EnclaveRunning}, kinds[len(kinds)-2:])
				require.Zero(t, h.notified())

				_, err = h.EnclaveStart(uid, 20, 0)
				require.ErrorIs(t, err, unix.EBUSY, "it runs")
				require.ErrorIs(t, h.SlotAddMem(uid, h.ram.base+64*mib, 2*mib), unix.EBUSY)
				require.NoError(t, h.EnclaveStop(uid))
				require.Equal(t, pcidev.StateStopped, h.state(uid))
				require.NoError(t, h.SlotFree(uid))
				require.Zero(t, h.notified(), "the end was asked for")
			})
		})
	}
}

func TestAnEnclaveThatDoesNothingEndsWithItsSession(t *testing.T) {
	for name, end := range map[string]func(*host) error{
		"reset": func(h *host) error { h.Reset(); return nil },
		"close": func(h *host) error { return h.Session.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			test(t, func(h *host) {
				_, err := h.EnclaveStart(h.ready(nil), 0, 0)
				require.NoError(t, err)
				require.NoError(t, end(h))
				require.Empty(t, h.Slots())
			})
		})
	}
}

// sizesAt is where the section sizes begin in an EIF's header.
const sizesAt = 284

func TestMemoryTooSmallForTheImage(t *testing.T) {
	test(t, func(h *host) {
		big := newPicture(t, 60*mib)
		uid := h.alloc()
		h.load(big.eif, region{h.ram.base, 80 * mib})
		require.NoError(t, h.SlotAddVCPU(uid, 2))
		_, err := h.EnclaveStart(uid, 0, 0)
		require.ErrorIs(t, err, unix.ENOMEM)
		require.ErrorContains(t, err, "has 0 MiB of memory, an enclave needs 64 MiB")
		require.NoError(t, h.SlotAddMem(uid, h.ram.base, 64*mib))
		require.NoError(t, h.SlotAddMem(uid, h.ram.base+64*mib, 8*mib))
		_, err = h.EnclaveStart(uid, 0, 0)
		require.NoError(t, err)
	})
}

func TestTheImageMayLieAcrossRegionsInAnyOrder(t *testing.T) {
	test(t, func(h *host) {
		p := newPicture(t, 11*mib)
		var regions []region
		for _, page := range []uint64{40, 3, 4, 41, 9, 7, 5, 60, 2, 1} {
			regions = append(regions, region{h.ram.at(page), 2 * mib})
		}
		regions = append(regions, region{h.ram.at(64), 44 * mib})
		h.load(p.eif, regions...)
		uid := h.alloc()
		require.NoError(t, h.SlotAddBulkVCPUs(uid, 2))
		for _, r := range regions {
			require.NoError(t, h.SlotAddMem(uid, r.paddr, r.size))
		}
		cid, err := h.EnclaveStart(uid, 0, 0)
		require.NoError(t, err)
		require.Equal(t, p.initrd, h.vmm.vm(cid).initrd)
		require.True(t, h.ram.zeroed(t))
	})
}

func TestTheImageIsNeverHeldTwice(t *testing.T) {
	test(t, func(h *host) {
		p := newPicture(t, 40*mib)
		uid := h.ready(p.eif)
		all := held(t, h.ram.file)
		require.GreaterOrEqual(t, all, int64(len(p.eif)))
		moved := int64(0)
		h.ram.onZero = func(paddr uint64) error {
			if moved == 0 {
				moved = 1
				return nil
			}
			require.LessOrEqual(t, held(t, h.ram.file), all-moved+moveChunk)
			moved = min(moved+moveChunk, int64(len(p.eif)))
			return nil
		}
		var spec VMSpec
		h.vmm.onStart = func(_ context.Context, s VMSpec) error {
			spec = s
			require.Zero(t, held(t, h.ram.file), "nothing is left with the parent when the VM starts")
			require.GreaterOrEqual(t, held(t, s.Kernel)+held(t, s.Initrd), int64(len(p.eif))-mib)
			for _, f := range []interface{ Truncate(int64) error }{s.Kernel, s.Initrd} {
				require.ErrorIs(t, f.Truncate(0), unix.EPERM)
				require.ErrorIs(t, f.Truncate(1<<30), unix.EPERM)
			}
			return nil
		}
		cid, err := h.EnclaveStart(uid, 0, 0)
		require.NoError(t, err)
		require.Equal(t, p.initrd, h.vmm.vm(cid).initrd)

		dup, err := unix.FcntlInt(spec.Initrd.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		require.NoError(t, err)
		defer unix.Close(dup)
		var st unix.Stat_t
		require.NoError(t, unix.Fstat(dup, &st))
		require.Positive(t, st.Blocks)
		spec.Loaded()
		spec.Loaded()
		synctest.Wait()
		require.NoError(t, unix.Fstat(dup, &st))
		require.Zero(t, st.Blocks, "given back though QEMU still has it open")
		unix.Close(dup)
		dup = -1
	})
}

func TestAParentThatChangesTheImageWhileItIsTaken(t *testing.T) {
	test(t, func(h *host) {
		p := newPicture(t, 5*mib)
		uid := h.ready(p.eif)
		reads := 0
		h.ram.onRead = func(paddr uint64) error {
			if reads++; reads == 7 { // after the headers were looked at: swap in a larger command line
				other := bytes.Clone(p.eif[:600])
				other[sizesAt+7]++
				_, err := h.ram.file.WriteAt(other, imageOffset)
				return err
			}
			return nil
		}
		_, err := h.EnclaveStart(uid, 0, 0)
		require.NoError(t, err)
		status, _ := h.Slot(uid)
		require.ErrorIs(t, status.Unbootable, ErrUnbootable)
	})
}

func TestMemoryThatGoesAwayDuringAStart(t *testing.T) {
	for name, unmapAt := range map[string]int{"at once": 1, "headers": 3, "middle": 20} {
		t.Run(name, func(t *testing.T) {
			test(t, func(h *host) {
				uid := h.ready(newPicture(t, 5*mib).eif)
				n := 0
				h.ram.onRead = func(uint64) error {
					if n++; n >= unmapAt {
						return unix.EFAULT
					}
					return nil
				}
				_, err := h.EnclaveStart(uid, 0, 0)
				require.ErrorIs(t, err, unix.EFAULT)
				require.Equal(t, pcidev.StateInit, h.state(uid))
			})
		})
	}
	t.Run("image lost", func(t *testing.T) {
		test(t, func(h *host) {
			uid := h.ready(newPicture(t, 5*mib).eif)
			h.vmm.onStart = func(context.Context, VMSpec) error {
				h.ram.mu.Lock()
				defer h.ram.mu.Unlock()
				h.ram.unmapped = true
				return errors.New("no")
			}
			_, err := h.EnclaveStart(uid, 0, 0)
			require.ErrorIs(t, err, unix.EIO)
			require.EqualError(t, err, "start the enclave's VM: no (the image is lost: bad address)")
			_, err = h.EnclaveStart(uid, 0, 0)
			require.ErrorIs(t, err, unix.EFAULT)
			require.NoError(t, h.SlotFree(uid))
		})
	})
}

func TestSlotsAreFew(t *testing.T) {
	test(t, func(h *host) {
		uids := map[uint64]bool{}
		for range DefaultSlots {
			uids[h.alloc()] = true
		}
		require.Len(t, uids, DefaultSlots)
		_, err := h.SlotAlloc()
		require.ErrorIs(t, err, unix.ENOSPC)
		require.EqualError(t, err, "all 4 enclave slots are in use: terminate an enclave first")
		n, err := h.SlotCount()
		require.NoError(t, err)
		require.Equal(t, uint64(4), n)

		var order []uint64
		for uid := uint64(0); ; {
			info, err := h.NextSlot(uid)
			if err != nil {
				require.ErrorIs(t, err, unix.ENOENT)
				break
			}
			uid = info.SlotUID
			order = append(order, uid)
		}
		require.Len(t, order, 4)
		require.True(t, slices.IsSorted(order))
		require.NoError(t, h.SlotFree(order[1]))
		h.alloc()
	})
}

func TestSlotUIDsAreUniqueAndNotZero(t *testing.T) {
	random := bytes.NewReader(append(make([]byte, 8), 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0))
	hv := New(Config{Rand: random})
	defer hv.Close()
	s, err := hv.Attach(newRAM(t, mib), func() {})
	require.NoError(t, err)
	for want := uint64(1); want <= 2; want++ {
		uid, err := s.SlotAlloc()
		require.NoError(t, err)
		require.Equal(t, want, uid)
	}
	_, err = s.SlotAlloc()
	require.ErrorIs(t, err, unix.EIO)
}

func TestMemoryRegionsThatAreRefused(t *testing.T) {
	test(t, func(h *host) {
		uid, other := h.alloc(), h.alloc()
		require.NoError(t, h.SlotAddMem(other, h.ram.at(10), 4*mib))
		for _, c := range []struct {
			paddr, size uint64
			errno       unix.Errno
		}{
			{h.ram.base + 1, 2 * mib, unix.EINVAL},
			{h.ram.base + mib, 2 * mib, unix.EINVAL},
			{h.ram.base, 3 * mib, unix.EINVAL},
			{h.ram.base, 0, unix.EINVAL},
			{math.MaxUint64 &^ (2*mib - 1), 2 * mib, unix.EINVAL},
			{h.ram.base, math.MaxUint64 &^ (2*mib - 1), unix.EINVAL},
			{0, 2 * mib, unix.EFAULT},
			{h.ram.base, 258 * mib, unix.EFAULT},
			{h.ram.at(10), 2 * mib, unix.EEXIST},
			{h.ram.at(11), 2 * mib, unix.EEXIST},
			{h.ram.at(9), 8 * mib, unix.EEXIST},
			{h.ram.at(9), 4 * mib, unix.EEXIST},
		} {
			err := h.SlotAddMem(uid, c.paddr, c.size)
			require.ErrorIs(t, err, c.errno, "%#x %#x", c.paddr, c.size)
		}
		require.NoError(t, h.SlotAddMem(uid, h.ram.at(9), 2*mib))
		require.NoError(t, h.SlotAddMem(uid, h.ram.at(12), 2*mib))
		require.ErrorIs(t, h.SlotAddMem(uid, h.ram.at(12), 2*mib), unix.EEXIST)
		require.NoError(t, h.SlotFree(other))
		require.NoError(t, h.SlotAddMem(uid, h.ram.at(10), 4*mib), "freed memory may be given again")
	})
}

func TestRegionsAreBounded(t *testing.T) {
	test(t, func(h *host) {
		uid := h.alloc()
		endless := &everything{h.ram}
		h.mem = endless
		for i := range uint64(pcidev.MaxMemRegions) {
			require.NoError(t, h.SlotAddMem(uid, i*4*mib, 2*mib))
		}
		require.ErrorIs(t, h.SlotAddMem(uid, 1<<40, 2*mib), unix.ENOSPC)
		huge := h.alloc()
		require.NoError(t, h.SlotAddMem(huge, 1<<62, 1<<62))
		require.ErrorIs(t, h.SlotAddMem(huge, 1<<63, 1<<62), unix.EINVAL, "a sum that overflows")
	})
}

// everything is mapped.
type everything struct{ *ram }

func (*everything) Mapped(uint64, uint64) bool { return true }

func TestVCPUsThatAreRefused(t *testing.T) {
	test(t, func(h *host) {
		uid, other := h.alloc(), h.alloc()
		require.NoError(t, h.SlotAddVCPU(other, 3))
		require.ErrorIs(t, h.SlotAddVCPU(uid, 0), unix.EINVAL)
		require.ErrorIs(t, h.SlotAddVCPU(uid, 8), unix.EINVAL)
		require.ErrorIs(t, h.SlotAddVCPU(uid, math.MaxUint32), unix.EINVAL)
		require.ErrorIs(t, h.SlotAddVCPU(uid, 3), unix.EEXIST)
		require.ErrorIs(t, h.SlotAddBulkVCPUs(uid, 0), unix.EINVAL)
		require.ErrorIs(t, h.SlotAddBulkVCPUs(uid, 7), unix.ENOSPC)
		require.ErrorIs(t, h.SlotAddBulkVCPUs(uid, math.MaxUint64), unix.ENOSPC)
		require.NoError(t, h.SlotAddBulkVCPUs(uid, 6))
		info, err := h.SlotInfo(uid)
		require.NoError(t, err)
		require.Equal(t, uint64(6), info.NrVCPUs)
		require.NoError(t, h.SlotFree(other))
		require.NoError(t, h.SlotAddVCPU(uid, 3))
	})
}

func TestCIDs(t *testing.T) {
	test(t, func(h *host) {
		p := newPicture(t, mib)
		uid := h.ready(p.eif)
		for _, cid := range []uint64{1, 2, 3, math.MaxUint32, math.MaxUint32 + 1, math.MaxUint64} {
			_, err := h.EnclaveStart(uid, cid, 0)
			require.ErrorIs(t, err, unix.EINVAL, cid)
		}
		_, err := h.EnclaveStart(uid, 4, 2)
		require.ErrorIs(t, err, unix.EINVAL, "unknown flag")
		cid, err := h.EnclaveStart(uid, uint64(firstCID), 0)
		require.NoError(t, err)
		require.Equal(t, uint64(firstCID), cid)

		second := h.alloc()
		h.load(p.eif, region{h.ram.base + 64*mib, 64 * mib})
		require.NoError(t, h.SlotAddMem(second, h.ram.base+64*mib, 64*mib))
		_, err = h.EnclaveStart(second, 0, 0)
		require.ErrorIs(t, err, unix.EINVAL, "no vCPU")
		require.NoError(t, h.SlotAddVCPU(second, 5))
		_, err = h.EnclaveStart(second, uint64(firstCID), 0)
		require.ErrorIs(t, err, unix.EADDRINUSE)
		cid, err = h.EnclaveStart(second, 0, 0)
		require.NoError(t, err)
		require.Equal(t, uint64(firstCID)+1, cid)

		require.NoError(t, h.EnclaveStop(uid))
		_, err = h.EnclaveGetSlot(uint64(firstCID))
		require.NoError(t, err, "the CID is the slot's until it is freed")
		require.NoError(t, h.SlotFree(uid))
		_, err = h.EnclaveGetSlot(uint64(firstCID))
		require.ErrorIs(t, err, unix.ENOENT)
		_, err = h.EnclaveGetSlot(0)
		require.ErrorIs(t, err, unix.ENOENT)

		h.nextCID = math.MaxUint32 - 1
		var chosen []uint32
		for range 3 {
			sl := &slot{}
			require.NoError(t, h.reserveCID(sl, 0))
			chosen = append(chosen, sl.cid)
		}
		require.Equal(t, []uint32{math.MaxUint32 - 1, 4, 5}, chosen, "the choice wraps around")
		clear(h.cids)
	})
}

func TestCommandsOutOfOrder(t *testing.T) {
	test(t, func(h *host) {
		for _, uid := range []uint64{0, 99} {
			require.ErrorIs(t, h.SlotFree(uid), unix.ENOENT)
			require.ErrorIs(t, h.SlotAddMem(uid, h.ram.base, 2*mib), unix.ENOENT)
			require.ErrorIs(t, h.SlotAddVCPU(uid, 1), unix.ENOENT)
			require.ErrorIs(t, h.SlotAddBulkVCPUs(uid, 1), unix.ENOENT)
			require.ErrorIs(t, h.EnclaveStop(uid), unix.ENOENT)
			_, err := h.SlotInfo(uid)
			require.ErrorIs(t, err, unix.ENOENT)
			_, err = h.EnclaveStart(uid, 0, 0)
			require.ErrorIs(t, err, unix.ENOENT)
		}
		uid := h.ready(newPicture(t, mib).eif)
		require.ErrorIs(t, h.EnclaveStop(uid), unix.EBUSY)
		_, err := h.EnclaveStart(uid, 0, 0)
		require.NoError(t, err)
		_, err = h.EnclaveStart(uid, 0, 0)
		require.ErrorIs(t, err, unix.EBUSY)
		require.ErrorIs(t, h.SlotAddMem(uid, h.ram.base+64*mib, 2*mib), unix.EBUSY)
		require.ErrorIs(t, h.SlotAddVCPU(uid, 5), unix.EBUSY)
		require.ErrorIs(t, h.SlotAddBulkVCPUs(uid, 1), unix.EBUSY)
		require.EqualError(t, h.SlotError(uid), fmt.Sprintf("add vCPUs: the enclave of slot %#x was started already", uid))
	})
}

func TestParentsDoNotSeeEachOther(t *testing.T) {
	test(t, func(h *host) {
		other := h.attach(newRAM(t, 64*mib))
		uid := h.ready(newPicture(t, mib).eif)
		cid, err := h.EnclaveStart(uid, 0, 0)
		require.NoError(t, err)

		require.ErrorIs(t, other.EnclaveStop(uid), unix.ENOENT)
		_, err = other.SlotInfo(uid)
		require.ErrorIs(t, err, unix.ENOENT)
		_, err = other.EnclaveGetSlot(cid)
		require.ErrorIs(t, err, unix.ENOENT)
		n, _ := other.SlotCount()
		require.Zero(t, n)

		mine, err := other.SlotAlloc()
		require.NoError(t, err)
		require.NoError(t, other.SlotAddMem(mine, h.ram.base, 64*mib), "its own memory at the same address")
		require.NoError(t, other.SlotAddVCPU(mine, 2), "its own vCPU 2")
		require.NoError(t, other.Close())
		require.Equal(t, pcidev.StateRunning, h.state(uid))
		require.ErrorIs(t, other.SlotFree(mine), unix.ENODEV)
		_, err = other.SlotAlloc()
		require.ErrorIs(t, err, unix.ENODEV)
	})
}

func TestFreedMemoryIsZeroed(t *testing.T) {
	test(t, func(h *host) {
		uid := h.alloc()
		require.NoError(t, h.SlotAddMem(uid, h.ram.base, 4*mib))
		_, err := h.ram.file.WriteAt([]byte("secret"), 3*mib)
		require.NoError(t, err)
		require.NoError(t, h.SlotFree(uid))
		require.True(t, h.ram.zeroed(t))
	})
}

func TestResetAndCloseEndWhatRuns(t *testing.T) {
	for name, end := range map[string]func(*host) error{
		"reset":            func(h *host) error { return h.Reset() },
		"session close":    func(h *host) error { return h.Session.Close() },
		"hypervisor close": func(h *host) error { return h.Hypervisor.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			test(t, func(h *host) {
				p := newPicture(t, mib)
				uid := h.ready(p.eif)
				cid, err := h.EnclaveStart(uid, 0, 0)
				require.NoError(t, err)
				h.alloc()
				ended := false
				h.vmm.vm(cid).stop.Do(func() { // a VM that takes its time
					time.AfterFunc(time.Second, func() {
						ended = true
						h.vmm.vm(cid).end <- Exit{Reason: ExitAsked}
					})
				})
				require.NoError(t, end(h))
				require.True(t, ended, "it is waited for")
				require.Empty(t, h.Slots())
				require.Zero(t, h.notified())
				if name == "reset" {
					_, err := h.EnclaveStart(h.ready(p.eif), 0, 0)
					require.NoError(t, err, "a new driver finds it as new")
				}
			})
		})
	}
}

func TestCloseEndsAStartUnderWay(t *testing.T) {
	for name, end := range map[string]func(*host) error{
		"reset": func(h *host) error { return h.Reset() },
		"close": func(h *host) error { return h.Hypervisor.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			test(t, func(h *host) {
				uid := h.ready(newPicture(t, mib).eif)
				h.vmm.onStart = func(ctx context.Context, _ VMSpec) error {
					<-ctx.Done()
					return ctx.Err()
				}
				got := make(chan error, 1)
				go func() {
					_, err := h.EnclaveStart(uid, 0, 0)
					got <- err
				}()
				synctest.Wait()
				require.ErrorIs(t, h.SlotFree(uid), unix.EBUSY)
				require.ErrorIs(t, h.EnclaveStop(uid), unix.EBUSY)
				require.Equal(t, pcidev.StateInit, h.state(uid))
				require.NoError(t, end(h))
				require.ErrorIs(t, <-got, unix.ECANCELED)
				require.Empty(t, h.Slots())
			})
		})
	}
}

func TestAStartDoesNotHoldUpOthers(t *testing.T) {
	test(t, func(h *host) {
		p := newPicture(t, mib)
		slow := h.ready(p.eif)
		release := make(chan struct{})
		h.vmm.onStart = func(_ context.Context, spec VMSpec) error {
			if spec.SlotUID == slow {
				<-release
			}
			return nil
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := h.EnclaveStart(slow, 0, 0)
			require.NoError(t, err)
		})
		synctest.Wait()
		quick := h.alloc()
		h.load(p.eif, region{h.ram.base + 64*mib, 64 * mib})
		require.NoError(t, h.SlotAddMem(quick, h.ram.base+64*mib, 64*mib))
		require.NoError(t, h.SlotAddVCPU(quick, 5))
		_, err := h.EnclaveStart(quick, 0, 0)
		require.NoError(t, err)
		require.NoError(t, h.EnclaveStop(quick))
		require.NoError(t, h.SlotFree(quick))
		close(release)
		wg.Wait()
	})
}

func TestManyEnclavesAtOnceFromManyParents(t *testing.T) {
	v := &vmm{}
	hv := New(Config{VMM: v, Slots: 8})
	p := newPicture(t, 3*mib)
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			r := newRAM(t, 64*mib)
			rings := make(chan struct{}, 100)
			s, err := hv.Attach(r, func() { rings <- struct{}{} })
			require.NoError(t, err)
			for round := range 6 {
				uid, err := s.SlotAlloc()
				require.NoError(t, err)
				_, err = r.file.WriteAt(p.eif, imageOffset)
				require.NoError(t, err)
				require.NoError(t, s.SlotAddMem(uid, r.base, 64*mib))
				require.NoError(t, s.SlotAddBulkVCPUs(uid, 2))
				cid, err := s.EnclaveStart(uid, 0, 0)
				require.NoError(t, err)
				m := v.vm(cid)
				switch (n + round) % 3 {
				case 0:
					m.end <- Exit{Reason: ExitKilled}
					<-rings
					require.NoError(t, s.SlotFree(uid))
				case 1:
					m.end <- Exit{Reason: ExitGuestPanic}
					require.NoError(t, s.EnclaveStop(uid))
					require.NoError(t, s.SlotFree(uid))
				case 2:
					require.NoError(t, s.Reset())
				}
			}
			if n%2 == 0 {
				require.NoError(t, s.Close())
			}
		})
	}
	wg.Wait()
	require.NoError(t, hv.Close())
	require.Empty(t, hv.Slots())
	_, err := hv.Attach(nil, nil)
	require.ErrorIs(t, err, net.ErrClosed)
}
