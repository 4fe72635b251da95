package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/pcidev"
	"github.com/nesim/nesim/scenarios/fault"
	"github.com/nesim/nesim/scenarios/scripted"
	"github.com/nesim/nesim/scenarios/trace"
	"github.com/nesim/nesim/sim/hypervisor"
	"github.com/nesim/nesim/sim/nedriver"
	"github.com/nesim/nesim/sim/parent"
	"github.com/nesim/nesim/sim/vsock"
)

// play is a stage with a process.
type play struct {
	*Stage
	t       testing.TB
	trace   *trace.Trace
	process *nedriver.Process
}

// set sets a stage, and closes it with everything that a test has left on it.
func set(t testing.TB, cfg Config) *play {
	cfg.Trace = new(trace.Trace)
	s, err := New(t.Context(), cfg)
	require.NoError(t, err)
	p := &play{s, t, cfg.Trace, s.Host.NewProcess()}
	t.Cleanup(p.end)
	return p
}

func (p *play) end() {
	if p.process != nil {
		require.NoError(p.t, p.process.Exit())
		require.NoError(p.t, p.Close())
		p.process = nil
	}
}

// load makes an enclave with the hello image and two CPUs.
func (p *play) load(name string, does scripted.Behaviour) *nedriver.Enclave {
	e, err := p.Driver.Open(p.process).CreateVM()
	require.NoError(p.t, err)
	p.Name(e.SlotUID(), name, does)
	const size = 128 << 20
	memory, err := p.process.Mmap(nedriver.MapSpec{Size: size, PageSize: nedriver.PageSize2M})
	require.NoError(p.t, err)
	image, n, err := p.Hello(p.t.Context())
	require.NoError(p.t, err)
	_, err = io.Copy(io.NewOffsetWriter(memory, nedriver.EIFLoadOffset), io.NewSectionReader(image, 0, n))
	require.NoError(p.t, err)
	require.NoError(p.t, e.SetUserMemoryRegion(nedriver.UserMemoryRegion{MemorySize: size, UserspaceAddr: memory.Addr()}))
	for range 2 {
		_, err = e.AddVCPU(0)
		require.NoError(p.t, err)
	}
	return e
}

// start starts an enclave and returns what its heartbeat came to.
func (p *play) start(e *nedriver.Enclave, cid uint64) error {
	heartbeat, err := p.Heartbeats.Expect()
	require.NoError(p.t, err)
	defer heartbeat.Close()
	got, err := e.StartEnclave(nedriver.StartInfo{EnclaveCID: cid})
	require.NoError(p.t, err)
	return heartbeat.Wait(p.t.Context(), uint32(got), parent.Timeout(1, 1), e.Done())
}

func (p *play) say(cid, port uint32, text string) (string, error) {
	src, dst := vsock.Addr{ContextID: vsock.CIDParent, Port: vsock.PortAny}, vsock.Addr{ContextID: cid, Port: port}
	conn, err := p.Net.Dial(p.t.Context(), src, dst)
	for errors.Is(err, unix.ECONNRESET) { // the workload comes after the heartbeat
		time.Sleep(time.Millisecond)
		conn, err = p.Net.Dial(p.t.Context(), src, dst)
	}
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, text); err != nil {
		return "", err
	}
	buf := make([]byte, 100)
	n, err := conn.Read(buf)
	return string(buf[:n]), err
}

// text is the whole trace, a line an entry.
func (p *play) text() string {
	var b strings.Builder
	for _, e := range p.trace.Entries() {
		b.WriteString(e.At.String() + " " + e.Lane + " " + string(e.Kind) + ": " + e.Text + "\n")
	}
	return b.String()
}

func TestAScriptedEnclavesLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := set(t, Config{Engine: Scripted})
		e := p.load("one", scripted.Behaviour{Boot: 3 * time.Second})
		require.NoError(t, p.start(e, 16))
		require.Equal(t, 3*time.Second, p.Now().Truncate(time.Second))
		answer, err := p.say(16, 5005, "hi")
		require.NoError(t, err)
		require.Equal(t, "hi", answer)
		text, err := p.Console(t.Context(), e.SlotUID(), func(text string) bool { return strings.Contains(text, "up 3 s") })
		require.NoError(t, err)
		require.Contains(t, text, "heartbeat answered")
		require.Zero(t, e.Poll())

		answer, err = p.say(16, 5006, "panic\n")
		require.NoError(t, err)
		require.Equal(t, "panicking the kernel\n", answer)
		<-e.Done()
		require.ErrorIs(t, e.Err(), nedriver.ErrHangUp)
		exit, err := p.Exit(t.Context(), e.SlotUID())
		require.NoError(t, err)
		require.Equal(t, hypervisor.ExitGuestPanic, exit.Reason)
	})
}

func TestFaultsStrike(t *testing.T) {
	for name, test := range map[string]struct {
		fault fault.Fault
		does  scripted.Behaviour
		then  func(t *testing.T, p *play)
	}{
		"a reply is late": {fault.Fault{At: fault.Reply, Do: fault.Delay, For: time.Minute, Command: pcidev.CmdSlotAddVCPU, Nth: 2}, scripted.Behaviour{},
			func(t *testing.T, p *play) {
				e := p.load("one", scripted.Behaviour{})
				require.Equal(t, time.Minute, p.Now().Truncate(time.Second))
				require.NoError(t, p.start(e, 16))
			}},
		"a reply is lost": {fault.Fault{At: fault.Reply, Do: fault.Lose, Command: pcidev.CmdSlotAlloc}, scripted.Behaviour{},
			func(t *testing.T, p *play) {
				_, err := p.Driver.Open(p.process).CreateVM()
				require.ErrorIs(t, err, unix.ETIMEDOUT)
				require.Equal(t, 120*time.Second, p.Now().Truncate(time.Second))
			}},
		"a reply has another rc": {fault.Fault{At: fault.Reply, Do: fault.Errno, Errno: nedriver.ErrorCode(unix.ENOSPC), Command: pcidev.CmdSlotAlloc}, scripted.Behaviour{},
			func(t *testing.T, p *play) {
				_, err := p.Driver.Open(p.process).CreateVM()
				require.ErrorIs(t, err, unix.ENOSPC)
			}},
		"an event is lost": {fault.Fault{At: fault.Event, Do: fault.Lose}, scripted.Behaviour{},
			func(t *testing.T, p *play) {
				e := p.load("one", scripted.Behaviour{Ends: &scripted.Ending{At: time.Second, How: scripted.Panic}})
				require.NoError(t, p.start(e, 16))
				time.Sleep(time.Hour)
				require.NoError(t, e.Err(), "the parent was not told")
			}},
		"events come in a storm": {fault.Fault{At: fault.Event, Do: fault.Storm, Times: 1000}, scripted.Behaviour{},
			func(t *testing.T, p *play) {
				e := p.load("one", scripted.Behaviour{Ends: &scripted.Ending{At: time.Second, How: scripted.Panic}})
				require.NoError(t, p.start(e, 16))
				<-e.Done()
			}},
		"the machine is refused": {fault.Fault{At: fault.Start, Do: fault.Refuse}, scripted.Behaviour{},
			func(t *testing.T, p *play) {
				_, err := p.load("one", scripted.Behaviour{}).StartEnclave(nedriver.StartInfo{})
				require.ErrorIs(t, err, unix.EIO)
			}},
		"the image is damaged": {fault.Fault{At: fault.Image, Do: fault.Corrupt, Bytes: 600}, scripted.Behaviour{},
			func(t *testing.T, p *play) {
				require.ErrorIs(t, p.start(p.load("one", scripted.Behaviour{}), 16), parent.ErrTimeout)
			}},
		"the heartbeat is missing": {fault.Fault{At: fault.Heartbeat, Do: fault.Lose}, scripted.Behaviour{},
			func(t *testing.T, p *play) {
				require.ErrorIs(t, p.start(p.load("one", scripted.Behaviour{}), 16), parent.ErrTimeout)
			}},
		"the heartbeat is late": {fault.Fault{At: fault.Heartbeat, Do: fault.Delay, For: time.Minute}, scripted.Behaviour{},
			func(t *testing.T, p *play) {
				require.NoError(t, p.start(p.load("one", scripted.Behaviour{}), 16))
				require.Equal(t, time.Minute, p.Now().Truncate(time.Second))
			}},
		"the heartbeat is another byte": {fault.Fault{At: fault.Heartbeat, Do: fault.Garbage}, scripted.Behaviour{},
			func(t *testing.T, p *play) {
				require.ErrorIs(t, p.start(p.load("one", scripted.Behaviour{}), 16), parent.ErrBadHeartbeat)
			}},
		"the heartbeat's connection is dropped": {fault.Fault{At: fault.Heartbeat, Do: fault.Drop}, scripted.Behaviour{},
			func(t *testing.T, p *play) {
				require.ErrorIs(t, p.start(p.load("one", scripted.Behaviour{}), 16), parent.ErrBadHeartbeat)
			}},
		"the heartbeat comes twice": {fault.Fault{At: fault.Heartbeat, Do: fault.Double}, scripted.Behaviour{},
			func(t *testing.T, p *play) { require.NoError(t, p.start(p.load("one", scripted.Behaviour{}), 16)) }},
		"a connection is reset": {fault.Fault{At: fault.Vsock, Do: fault.Reset, Bytes: 1, Port: 5005}, scripted.Behaviour{},
			func(t *testing.T, p *play) {
				require.NoError(t, p.start(p.load("one", scripted.Behaviour{}), 16))
				answer, err := p.say(16, 5005, "hi")
				require.NoError(t, err)
				require.Equal(t, "h", answer)
			}},
		"a connection is slow": {fault.Fault{At: fault.Vsock, Do: fault.Limit, Rate: 2, Port: 5005}, scripted.Behaviour{},
			func(t *testing.T, p *play) {
				require.NoError(t, p.start(p.load("one", scripted.Behaviour{}), 16))
				_, err := p.say(16, 5005, "ten bytes!")
				require.NoError(t, err)
				require.GreaterOrEqual(t, p.Now(), 5*time.Second)
			}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := set(t, Config{Engine: Scripted})
				test.fault.Name = "the fault"
				p.Faults.Add(test.fault)
				test.then(t, p)
				require.Contains(t, p.text(), "fault: the fault: "+string(test.fault.Do))
			})
		})
	}
}

func TestSignalsToTheVMM(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := set(t, Config{Engine: Scripted})
		e := p.load("one", scripted.Behaviour{})
		require.NoError(t, p.start(e, 16))
		require.NoError(t, p.Kill(e.SlotUID(), syscall.SIGSTOP))
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		_, err := p.Console(ctx, e.SlotUID(), func(text string) bool { return strings.Contains(text, "up 3 s") })
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NoError(t, p.Kill(e.SlotUID(), syscall.SIGCONT))
		_, err = p.Console(t.Context(), e.SlotUID(), func(text string) bool { return strings.Contains(text, "up 3 s") })
		require.NoError(t, err)
		require.NoError(t, p.Kill(e.SlotUID(), syscall.SIGKILL))
		<-e.Done()
		exit, err := p.Exit(t.Context(), e.SlotUID())
		require.NoError(t, err)
		require.Equal(t, hypervisor.ExitKilled, exit.Reason)
	})
}

func TestRawCommandsPassTheDriver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := set(t, Config{Engine: Scripted})
		do := func(req pcidev.Request, rc unix.Errno) pcidev.Reply {
			t.Helper()
			reply, err := p.Do(t.Context(), req)
			require.NoError(t, err)
			require.EqualValues(t, -int32(rc), reply.RC)
			return reply
		}
		uid := do(pcidev.SlotAllocReq{}, 0).SlotUID
		do(pcidev.SlotAddMemReq{SlotUID: uid, PAddr: RawMemory + 64<<20, Size: 64 << 20}, 0)
		do(pcidev.SlotInfoReq{SlotUID: 1}, unix.ENOENT)
		do(pcidev.EnclaveStartReq{SlotUID: uid}, unix.EINVAL) // no vCPU
		do(pcidev.SlotAddBulkVCPUsReq{SlotUID: uid, NrVCPUs: 2}, 0)
		require.EqualValues(t, 20, do(pcidev.EnclaveStartReq{SlotUID: uid, EnclaveCID: 20}, 0).EnclaveCID)
		require.Equal(t, pcidev.StateRunning, do(pcidev.EnclaveGetSlotReq{EnclaveCID: 20}, 0).State)
		do(pcidev.EnclaveStopReq{SlotUID: uid}, 0)
		do(pcidev.SlotFreeReq{SlotUID: uid}, 0)
		require.Zero(t, do(pcidev.SlotCountReq{}, 0).SlotCount)
	})
}

func TestTheSameSeedGivesTheSameTrace(t *testing.T) {
	life := func(t *testing.T) (text string) {
		synctest.Test(t, func(t *testing.T) {
			p := set(t, Config{Engine: Scripted, Seed: 7, NSM: true})
			p.Faults.Add(fault.Fault{Name: "chance", At: fault.Reply, Do: fault.Delay, For: time.Millisecond, Chance: 0.5})
			e := p.load("one", scripted.Behaviour{Boot: time.Second})
			require.NoError(t, p.start(e, 16))
			answer, err := p.say(16, 5006, "attest 00\n")
			require.NoError(t, err)
			require.NotContains(t, answer, "error")
			_, err = p.say(16, 5006, "exit 3\n")
			require.NoError(t, err)
			<-e.Done()
			p.end()
			text = p.text()
		})
		return text
	}
	want := life(t)
	for range 20 {
		alike(t, want, life(t))
	}
}

func TestMoreFaultsOfConnections(t *testing.T) {
	dial := func(t *testing.T, p *play) vsock.Conn {
		require.NoError(t, p.start(p.load("one", scripted.Behaviour{}), 16))
		time.Sleep(time.Second)
		conn, err := p.Net.Dial(t.Context(), vsock.Addr{ContextID: vsock.CIDParent}, vsock.Addr{ContextID: 16, Port: 5005})
		require.NoError(t, err)
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	for name, test := range map[string]struct {
		fault fault.Fault
		then  func(t *testing.T, p *play)
	}{
		"refused": {fault.Fault{Do: fault.Refuse}, func(t *testing.T, p *play) {
			require.NoError(t, p.start(p.load("one", scripted.Behaviour{}), 16))
			time.Sleep(time.Second)
			_, err := p.Net.Dial(t.Context(), vsock.Addr{ContextID: vsock.CIDParent}, vsock.Addr{ContextID: 16, Port: 5005})
			require.ErrorIs(t, err, unix.ECONNRESET)
		}},
		"half closed": {fault.Fault{Do: fault.Half, Bytes: 2}, func(t *testing.T, p *play) {
			conn := dial(t, p)
			_, err := io.WriteString(conn, "hello")
			require.NoError(t, err)
			got, err := io.ReadAll(conn)
			require.NoError(t, err)
			require.Equal(t, "he", string(got))
			_, err = io.WriteString(conn, "the other direction goes on")
			require.NoError(t, err)
		}},
		"stalled": {fault.Fault{Do: fault.Stall, Bytes: 2}, func(t *testing.T, p *play) {
			conn := dial(t, p)
			require.NoError(t, conn.SetDeadline(time.Now().Add(time.Hour)))
			n, err := io.WriteString(conn, "hello")
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			require.Equal(t, 2, n, "what has credit passes")
			require.NoError(t, conn.SetDeadline(time.Now().Add(time.Hour)))
			got, err := io.ReadAll(conn)
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			require.Equal(t, "he", string(got))
			require.NoError(t, conn.SetDeadline(time.Time{}))
			time.AfterFunc(time.Hour, func() { conn.Close() })
			_, err = conn.Read(make([]byte, 1))
			require.ErrorIs(t, err, net.ErrClosed)
		}},
		"late": {fault.Fault{Do: fault.Delay, For: time.Minute}, func(t *testing.T, p *play) {
			conn, began := dial(t, p), time.Now()
			_, err := io.WriteString(conn, "hello")
			require.NoError(t, err)
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(time.Second)))
			_, err = conn.Read(make([]byte, 9))
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			require.NoError(t, conn.SetReadDeadline(time.Time{}))
			n, err := conn.Read(make([]byte, 9))
			require.NoError(t, err)
			require.Equal(t, 5, n, "nothing is lost by a deadline")
			require.Equal(t, 2*time.Minute, time.Since(began).Truncate(time.Second))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := set(t, Config{Engine: Scripted})
				test.fault.At, test.fault.Port = fault.Vsock, 5005
				p.Faults.Add(test.fault)
				test.then(t, p)
			})
		})
	}
}

func TestEndingsOfItsOwn(t *testing.T) {
	for how, want := range map[scripted.How]string{
		scripted.Exit: "guest exit with code 3", scripted.Crash: "guest exit: workload killed by signal 11 (SIGSEGV)", scripted.PowerOff: "guest exit", scripted.Reboot: "guest exit",
		scripted.TripleFault: "guest exit", scripted.Panic: "guest panic: sysrq triggered crash", scripted.Killed: "VM killed: SIGKILL (killed)",
		scripted.OutOfMemory: "VM killed: SIGKILL (killed) by the host, which is out of memory", scripted.Failed: "VM failed: the VMM cannot go on",
	} {
		t.Run(string(how), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := set(t, Config{Engine: Scripted})
				e := p.load("one", scripted.Behaviour{Ends: &scripted.Ending{At: time.Minute, How: how, Code: 3}})
				require.NoError(t, p.start(e, 16))
				<-e.Done()
				require.ErrorIs(t, e.Err(), nedriver.ErrHangUp)
				require.Equal(t, time.Minute, p.Now().Truncate(time.Second))
				exit, err := p.Exit(t.Context(), e.SlotUID())
				require.NoError(t, err)
				require.Equal(t, want, exit.String())
			})
		})
	}
}

func TestAnEnclaveThatEndsBeforeItsHeartbeatIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := set(t, Config{Engine: Scripted})
		e := p.load("one", scripted.Behaviour{Leaves: true})
		require.ErrorIs(t, p.start(e, 16), parent.ErrBadHeartbeat)
		<-e.Done()
	})
}

func TestAMachineThatDoesNotListenIsKilledAfterAWhile(t *testing.T) {
	for name, stop := range map[string]func(p *play, e *nedriver.Enclave, b *scripted.Behaviour){
		"hung":    func(_ *play, _ *nedriver.Enclave, b *scripted.Behaviour) { b.IgnoreEnd = true },
		"stopped": nil,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := set(t, Config{Engine: Scripted})
				var does scripted.Behaviour
				if stop != nil {
					stop(p, nil, &does)
				}
				e := p.load("one", does)
				require.NoError(t, p.start(e, 16))
				if stop == nil {
					require.NoError(t, p.Kill(e.SlotUID(), syscall.SIGSTOP))
				}
				began := time.Now()
				require.NoError(t, e.Close())
				require.Equal(t, 3*time.Second, time.Since(began).Truncate(time.Second))
			})
		})
	}
}

func TestTheConsoleOfADebugEnclaveIsWhereRealOnesHaveIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := set(t, Config{Engine: Scripted})
		e := p.load("one", scripted.Behaviour{Mute: true, Console: []scripted.Line{{At: time.Second, Text: "flood", Times: 50_000}}})
		_, err := e.StartEnclave(nedriver.StartInfo{EnclaveCID: 16, Flags: nedriver.NEEnclaveDebugMode})
		require.NoError(t, err)
		dial := func() (vsock.Conn, error) {
			return p.Net.Dial(t.Context(), vsock.Addr{ContextID: vsock.CIDParent}, vsock.Addr{ContextID: vsock.CIDHypervisor, Port: 10016})
		}
		slow, err := dial() // and never reads
		require.NoError(t, err)
		defer slow.Close()
		time.Sleep(time.Minute)
		conn, err := dial()
		require.NoError(t, err)
		require.NoError(t, p.Kill(e.SlotUID(), syscall.SIGKILL))
		defer conn.Close()
		text, err := io.ReadAll(conn)
		require.NoError(t, err)
		require.Contains(t, string(text), "flood\r\nflood")
		<-e.Done()
		_, err = dial()
		require.ErrorIs(t, err, unix.ECONNREFUSED)
	})
}

func TestTheDaemonStartsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := set(t, Config{Engine: Scripted})
		first := p.load("first", scripted.Behaviour{})
		require.NoError(t, p.start(first, 16))
		require.NoError(t, p.Restart(t.Context()))
		<-first.Done()
		require.ErrorIs(t, first.Err(), nedriver.ErrDeviceGone)
		require.EqualValues(t, unix.POLLHUP, first.Poll())
		second := p.load("second", scripted.Behaviour{})
		require.NoError(t, p.start(second, 16))
		require.NoError(t, first.Close())
	})
}

func TestBranchesActOneAtATimeInTheSeedsOrder(t *testing.T) {
	branch := func(p *play, n int) {
		does := scripted.Behaviour{Boot: 5 * time.Second, Ends: &scripted.Ending{At: time.Minute, How: scripted.Panic}}
		var e *nedriver.Enclave
		p.Alone(n, func() { e = p.load(fmt.Sprint("enclave ", n), does) })
		heartbeat, err := p.Heartbeats.Expect()
		require.NoError(p.t, err)
		defer heartbeat.Close()
		p.Alone(n, func() { _, err = e.StartEnclave(nedriver.StartInfo{}) })
		require.NoError(p.t, err)
		cid := uint32(p.cidOf(e))
		require.NoError(p.t, heartbeat.Wait(p.t.Context(), cid, parent.Timeout(1, 1), e.Done()))
		p.Turn(n)
		_, _ = p.say(cid, 5005, "hello")
		<-e.Done()
		p.Alone(n, func() { require.NoError(p.t, e.Close()) })
	}
	lives := func(t *testing.T, seed uint64) (text string) {
		synctest.Test(t, func(t *testing.T) {
			p := set(t, Config{Engine: Scripted, Seed: seed})
			p.Faults.Add(fault.Fault{Name: "slow", At: fault.Reply, Do: fault.Delay, For: time.Second, Chance: 0.3})
			p.Faults.Add(fault.Fault{Name: "reset", At: fault.Vsock, Do: fault.Reset, Bytes: 1, Chance: 0.5})
			var branches sync.WaitGroup
			for n := range 4 {
				branches.Go(func() { branch(p, n) })
			}
			branches.Wait()
			p.end()
			text = p.text()
		})
		return text
	}
	same := lives(t, 7)
	for range 50 {
		alike(t, same, lives(t, 7))
	}
	require.False(t, same == lives(t, 8), "another seed, another run")
}

// alike compares long texts, and shows where they part.
func alike(t *testing.T, want, got string) {
	if want == got {
		return
	}
	i := 0
	for i < min(len(want), len(got)) && want[i] == got[i] {
		i++
	}
	around := func(s string) string { return s[max(0, i-300):min(len(s), i+300)] }
	t.Fatalf("the runs part:\n%s\n---\n%s", around(want), around(got))
}

func (p *play) cidOf(e *nedriver.Enclave) uint64 {
	slot, _ := p.Hypervisor.Slot(e.SlotUID())
	return slot.EnclaveCID
}

func TestWhatIsLeftOverIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := New(t.Context(), Config{Engine: Scripted, HugePages: []nedriver.HugePages{{PageSize: nedriver.PageSize2M, Pages: 64}}})
		require.NoError(t, err)
		process := s.Host.NewProcess()
		_, err = process.Mmap(nedriver.MapSpec{Size: 2 << 20})
		require.NoError(t, err)
		e, err := s.Driver.Open(process).CreateVM()
		require.NoError(t, err)
		s.Name(e.SlotUID(), "forgotten", scripted.Behaviour{})
		require.ErrorContains(t, s.Leftovers(), "1 slot is left over, the first that of forgotten")
		require.ErrorContains(t, s.Close(), "2 MiB of the parent's memory are still in use")
		require.NoError(t, process.Exit())
	})
}
