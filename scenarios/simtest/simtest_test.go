package simtest_test

import (
	"fmt"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/scenarios/fault"
	"github.com/nesim/nesim/scenarios/scripted"
	"github.com/nesim/nesim/scenarios/simtest"
	"github.com/nesim/nesim/scenarios/stage"
	"github.com/nesim/nesim/sim/hypervisor"
	"github.com/nesim/nesim/sim/nedriver"
	"github.com/nesim/nesim/sim/parent"
	"github.com/nesim/nesim/sim/vsock"
)

func TestInstancesOfParallelTestsDoNotMeet(t *testing.T) {
	for n := range 8 {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			simtest.Test(t, func(i *simtest.Instance) {
				for range 2 {
					e := i.Run(simtest.Spec{CID: 16})
					conn := e.Dial(5005)
					fmt.Fprint(conn, n)
					require.NoError(t, conn.CloseWrite())
					got, err := io.ReadAll(conn)
					require.NoError(t, err)
					require.Equal(t, fmt.Sprint(n), string(got))
					conn.Close()
					e.Terminate()
				}
			})
		})
	}
}

func TestAnInstanceOnTheMachinesClock(t *testing.T) {
	i := simtest.New(t)
	e := i.Run(simtest.Spec{})
	require.Equal(t, "PATH=/sbin:/usr/sbin:/bin:/usr/bin", e.Call("env"))
	e.ExpectRunning()
	e.Freeze()
	e.Thaw()
	require.Equal(t, "exiting with code 3", e.Call("exit 3"))
	require.Equal(t, "guest exit with code 3", e.ExpectExit(hypervisor.ExitGuest).String())
	e.ExpectHangUp()
	e.Terminate()
}

func TestAnInstanceOfRealMachines(t *testing.T) {
	i := simtest.New(t, simtest.On(stage.QEMU), simtest.WithNSM())
	e := i.Run(simtest.Spec{Debug: true})
	e.ExpectConsole("heartbeat answered")
	require.NotContains(t, e.Call("attest 00"), "error")
	e.Call("panic")
	e.ExpectHangUp()
	e.ExpectExit(hypervisor.ExitGuestPanic)
}

func TestWhatARunMayBeRefusedFor(t *testing.T) {
	for name, test := range map[string]struct {
		options []simtest.Option
		fault   fault.Fault
		spec    simtest.Spec
		want    error
	}{
		"no pool":       {[]simtest.Option{simtest.CPUs(nedriver.Topology{}, "none")}, fault.Fault{}, simtest.Spec{}, nedriver.NEErrNoCPUsAvailInPool},
		"no huge pages": {[]simtest.Option{simtest.HugePages(nedriver.HugePages{PageSize: 2 << 20, Pages: 1})}, fault.Fault{}, simtest.Spec{}, unix.ENOMEM},
		"half a core":   {nil, fault.Fault{}, simtest.Spec{CPUs: 1}, nedriver.NEErrFullCoresNotUsed},
		"little memory": {nil, fault.Fault{}, simtest.Spec{MemoryMiB: 32}, nedriver.NEErrEnclaveMemMinSize},
		"a bad CID":     {nil, fault.Fault{}, simtest.Spec{CID: 3}, nedriver.NEErrInvalidEnclaveCID},
		"no machine":    {nil, fault.Fault{At: fault.Start, Do: fault.Refuse}, simtest.Spec{}, unix.EIO},
		"no heartbeat":  {nil, fault.Fault{}, simtest.Spec{Behaviour: scripted.Behaviour{Mute: true}}, parent.ErrTimeout},
		"another byte":  {nil, fault.Fault{At: fault.Heartbeat, Do: fault.Garbage}, simtest.Spec{}, parent.ErrBadHeartbeat},
		"an early end": {nil, fault.Fault{}, simtest.Spec{Behaviour: scripted.Behaviour{Boot: time.Minute,
			Ends: &scripted.Ending{At: time.Second, How: scripted.Panic}}}, parent.ErrEnded},
	} {
		t.Run(name, func(t *testing.T) {
			simtest.Test(t, func(i *simtest.Instance) {
				i.Break(test.fault)
				_, err := i.TryRun(test.spec)
				require.ErrorIs(t, err, test.want)
			}, test.options...)
		})
	}
	t.Run("all slots in use", func(t *testing.T) {
		simtest.Test(t, func(i *simtest.Instance) {
			i.Run(simtest.Spec{})
			_, err := i.TryRun(simtest.Spec{})
			require.ErrorIs(t, err, unix.ENOSPC)
		}, simtest.Slots(1))
	})
}

// failing is a test that remembers its failures.
type failing struct {
	testing.TB
	failed atomic.Bool
	text   string
}

func (f *failing) Helper()        {}
func (f *failing) Cleanup(func()) {}
func (f *failing) Failed() bool   { return f.failed.Load() }

func (f *failing) Fatalf(format string, args ...any) {
	f.failed.Store(true)
	f.text = fmt.Sprintf(format, args...)
	panic(f)
}

func TestAFailureSaysWhat(t *testing.T) {
	for want, fail := range map[string]func(e *simtest.Enclave){
		`crashing: nothing on its console matches "moon"; it ends with:`: func(e *simtest.Enclave) { e.ExpectConsole("moon") },
		"crashing: its end is guest exit: workload killed by signal 11 (SIGSEGV), not guest panic": func(e *simtest.Enclave) {
			e.Call("crash")
			e.ExpectExit(hypervisor.ExitGuestPanic)
		},
		"crashing: it has not ended":          func(e *simtest.Enclave) { e.ExpectExit(hypervisor.ExitGuest) },
		"crashing: its file has not hung up":  func(e *simtest.Enclave) { e.ExpectHangUp() },
		"crashing: nobody listens on port 99": func(e *simtest.Enclave) { e.Dial(99) },
		`crashing: call "env"`:                func(e *simtest.Enclave) { e.Call("hang"); e.Call("env") },
		"crashing: it has ended":              func(e *simtest.Enclave) { e.Kill(); e.ExpectHangUp(); e.ExpectRunning() },
	} {
		t.Run(want, func(t *testing.T) {
			simtest.Test(t, func(real *simtest.Instance) {
				f := &failing{TB: t}
				i := simtest.New(f)
				func() {
					defer func() { require.Equal(t, any(f), recover()) }()
					fail(i.Run(simtest.Spec{Name: "crashing"}))
				}()
				require.Contains(t, f.text, want)
				require.Contains(t, i.Trace(), "crashing   state     enclave running")
				require.NoError(t, i.Process.Exit())
				require.NoError(t, i.Close())
			})
		})
	}
}

func TestAnEnclaveReachesNobodyButItsParent(t *testing.T) {
	simtest.Test(t, func(i *simtest.Instance) {
		e := i.Run(simtest.Spec{})
		_, err := i.Net.Dial(t.Context(), vsock.Addr{ContextID: e.CID()}, vsock.Addr{ContextID: e.CID() + 1, Port: 5005})
		require.ErrorIs(t, err, unix.ENETUNREACH)
	}, simtest.Seed(5))
}
