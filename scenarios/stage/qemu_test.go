package stage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/eif"
	"github.com/nesim/nesim/pcidev"
	"github.com/nesim/nesim/scenarios/fault"
	"github.com/nesim/nesim/scenarios/scripted"
	"github.com/nesim/nesim/sim/hypervisor"
	"github.com/nesim/nesim/sim/nedriver"
)

// await waits for something that a machine does in its own time.
func await(t *testing.T, what string, done func() bool) {
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(10 * time.Millisecond) {
		require.True(t, time.Now().Before(end), what)
	}
}

func TestAQEMUEnclavesLifeIsTheSame(t *testing.T) {
	p := set(t, Config{Engine: QEMU, NSM: true})
	p.Faults.Add(fault.Fault{Name: "slow", At: fault.Reply, Do: fault.Delay, For: 50 * time.Millisecond, Command: pcidev.CmdSlotAddVCPU, Nth: 1})
	p.Faults.Add(fault.Fault{Name: "cut", At: fault.Vsock, Do: fault.Reset, Bytes: 2, Port: 5005})
	e := p.load("one", scripted.Behaviour{})
	require.NoError(t, p.start(e, 16))
	answer, err := p.say(16, 5005, "hello")
	require.NoError(t, err)
	require.Equal(t, "he", answer)
	answer, err = p.say(16, 5006, "exit 3\n")
	require.NoError(t, err)
	require.Equal(t, "exiting with code 3\n", answer)
	<-e.Done()
	exit, err := p.Exit(t.Context(), e.SlotUID())
	require.NoError(t, err)
	require.Equal(t, "guest exit with code 3", exit.String())
	for _, told := range []string{"slow: delay at reply of SLOT_ADD_VCPU", "cut: reset at vsock", "heartbeat answered by CID 3", "asks its NSM"} {
		require.Contains(t, p.text(), told)
	}
}

func TestSignalsToQEMU(t *testing.T) {
	p := set(t, Config{Engine: QEMU})
	pid := func() int { return p.engine.(*qemuEngine).PID(16) }

	e := p.load("stopped", scripted.Behaviour{})
	require.NoError(t, p.start(e, 16))
	stopped := pid()
	require.NoError(t, p.Kill(e.SlotUID(), syscall.SIGSTOP))
	require.NoError(t, e.Close(), "one that is stopped is killed in the end")
	require.ErrorIs(t, syscall.Kill(stopped, 0), syscall.ESRCH)

	p.Faults.Add(fault.Fault{Name: "unheard", At: fault.Event, Do: fault.Lose, Nth: 1})
	e = p.load("killed", scripted.Behaviour{})
	require.NoError(t, p.start(e, 16))
	require.NoError(t, p.Kill(e.SlotUID(), syscall.SIGKILL))
	exit, err := p.Exit(t.Context(), e.SlotUID())
	require.NoError(t, err)
	require.Equal(t, hypervisor.ExitKilled, exit.Reason)
	require.NoError(t, e.Err(), "the parent was not told")
	require.NoError(t, e.Close())
}

func TestTheDaemonOfQEMUsStartsAgain(t *testing.T) {
	p := set(t, Config{Engine: QEMU})
	first := p.load("first", scripted.Behaviour{})
	_, err := first.StartEnclave(nedriver.StartInfo{EnclaveCID: 16})
	require.NoError(t, err)
	require.NoError(t, p.Restart(t.Context()))
	require.ErrorIs(t, first.Err(), nedriver.ErrDeviceGone)
	require.NoError(t, first.Close())
	reply, err := p.Do(t.Context(), pcidev.SlotCountReq{})
	require.NoError(t, err)
	require.Zero(t, reply.SlotCount)
	await(t, "the machine's folder is gone", func() bool {
		_, err := os.Stat(p.engine.(*qemuEngine).dir + "/16")
		return errors.Is(err, fs.ErrNotExist)
	})
	_, err = p.load("damaged", scripted.Behaviour{}).GetImageLoadInfo(0)
	require.ErrorIs(t, err, nedriver.NEErrInvalidFlagValue)
	p.Faults.Add(fault.Fault{Name: "damage", At: fault.Image, Do: fault.Corrupt, Bytes: 1 << 20})
	worse := p.load("worse", scripted.Behaviour{})
	_, err = worse.StartEnclave(nedriver.StartInfo{})
	require.NoError(t, err)
	slot, _ := p.Hypervisor.Slot(worse.SlotUID())
	require.ErrorIs(t, slot.Unbootable, eif.ErrCRC)
	require.NoError(t, worse.Close())
}

func TestAnEnclaveCostsLittleMemoryBesideItsRAM(t *testing.T) {
	p := set(t, Config{Engine: QEMU, NSM: true})
	const enclaves, most = 4, 60 << 20
	own := func() uint64 {
		debug.FreeOSMemory()
		status, err := os.ReadFile("/proc/self/status")
		require.NoError(t, err)
		_, rest, _ := strings.Cut(string(status), "RssAnon:")
		kib, err := strconv.ParseUint(strings.Fields(rest)[0], 10, 64)
		require.NoError(t, err)
		return kib << 10
	}
	_, _, err := p.Hello(t.Context())
	require.NoError(t, err)
	before, all := own(), uint64(0)
	var slots []uint64
	for i := range enclaves {
		e := p.load(fmt.Sprint("enclave ", i), scripted.Behaviour{})
		require.NoError(t, p.start(e, uint64(16+i)))
		slots = append(slots, e.SlotUID())
	}
	for i, slot := range slots {
		_, err := p.say(uint32(16+i), 5005, "hello")
		require.NoError(t, err)
		n := p.VMMMemory(slot)
		require.NotZero(t, n)
		all += n
	}
	if after := own(); after > before {
		all += after - before
	}
	t.Logf("%d MiB an enclave beside its RAM, of %d", all/enclaves>>20, enclaves)
	require.Less(t, all/enclaves, uint64(most))
}
