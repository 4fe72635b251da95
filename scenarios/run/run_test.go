package run_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/scenarios"
	"github.com/nesim/nesim/scenarios/run"
	"github.com/nesim/nesim/scenarios/stage"
	"github.com/nesim/nesim/scenarios/steps"
	"github.com/nesim/nesim/scenarios/trace"
)

// roleVariable tells the test's own program which of the programs of exec steps it is.
const roleVariable = "NESIM_TEST_ROLE"

func TestMain(m *testing.M) {
	roles := map[string]func() error{"hear": hear, "talk": talk}
	if role := roles[os.Getenv(roleVariable)]; role != nil {
		if err := role(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// hear answers one heartbeat, as a parent's program does.
func hear() error {
	l, err := net.Listen("unix", os.Getenv("NESIM_VSOCK_PARENT")+"_9000")
	if err != nil {
		return err
	}
	if err := os.WriteFile(os.Getenv("READY"), nil, 0o600); err != nil {
		return err
	}
	c, err := l.Accept()
	if err != nil {
		return err
	}
	var heartbeat [1]byte
	if _, err := io.ReadFull(c, heartbeat[:]); err != nil {
		return err
	}
	fmt.Printf("heard %#x\n", heartbeat)
	_, err = c.Write(heartbeat[:])
	return err
}

// talk has the enclave's echo repeat something, once somebody listens.
func talk() error {
	for {
		c, err := net.Dial("unix", os.Getenv("NESIM_VSOCK_ONE"))
		if err != nil {
			return err
		}
		fmt.Fprintln(c, "CONNECT 5005")
		answer := bufio.NewReader(c)
		line, err := answer.ReadString('\n')
		if err != nil {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		fmt.Fprint(c, "hello")
		if err := c.(*net.UnixConn).CloseWrite(); err != nil {
			return err
		}
		echo, err := io.ReadAll(answer)
		fmt.Println(strings.TrimSpace(line), string(echo))
		return err
	}
}

func parse(t testing.TB, text string) []*scenarios.Scenario {
	t.Helper()
	list, err := steps.Language.Parse("test.yaml", []byte(text))
	require.NoError(t, err)
	return list
}

// play runs a scenario on the scripted engine.
func play(t testing.TB, text string) trace.Result {
	t.Helper()
	return run.Run(t.Context(), parse(t, text)[0], run.Options{Engine: stage.Scripted})
}

// statuses are those of the steps.
func statuses(r trace.Result) (all []trace.Status) {
	for _, s := range r.Steps {
		all = append(all, s.Status)
	}
	return all
}

const life = `
name: a life
steps:
- run: {enclave: one, cid: 16}
- dial: {as: echo, enclave: one, port: 5005}
- send: {on: echo, text: hello}
- expect: {on: echo, text: hello}
- close: {on: echo}
- call: {enclave: one, command: exit 3, answer: code 3}
- poll: {enclave: one}
- ended: {enclave: one, reason: guest exit, code: 3}
- slot: {enclave: one, state: stopped}
- terminate: {enclave: one}
`

func TestAScenarioPasses(t *testing.T) {
	r := play(t, life)
	require.Equal(t, trace.Passed, r.Status, r.Error)
	require.Len(t, r.Steps, 10)
	require.Equal(t, "run one cid=16", r.Steps[0].Name)
	require.Equal(t, "test.yaml", r.Steps[9].File)
	require.Equal(t, 13, r.Steps[9].Line)
	require.EqualValues(t, 1, r.Seed)
	require.NotEmpty(t, r.Entries)
}

func TestAfterAStepThatFailsNothingIsRun(t *testing.T) {
	r := play(t, `
name: fails
steps:
- create: {enclave: one}
- add_cpu: {enclave: one, cpu: 1}
- add_cpu: {enclave: one}
`)
	require.Equal(t, trace.Failed, r.Status)
	require.Equal(t, []trace.Status{trace.Passed, trace.Failed, trace.NotRun}, statuses(r))
	require.Contains(t, r.Error, "step 2 (add_cpu one cpu=1): ")
	require.Contains(t, r.Steps[1].Error, "NE_ERR_VCPU_NOT_IN_CPU_POOL")
	require.NotContains(t, r.Error, "\n")
}

func TestWhatIsExpectedAndNotSeenFails(t *testing.T) {
	for steps, want := range map[string]string{
		"- create: {enclave: one}\n  expect_error: ENOSPC":                                                "no error, where ENOSPC is expected",
		"- create: {enclave: one}\n- add_cpu: {enclave: one, cpu: 5000}\n  expect_error: EINVAL":          "NE_ERR_INVALID_VCPU, where EINVAL is expected",
		"- run: {enclave: one, heartbeat: time-out}":                                                      "heartbeat answered, not time-out",
		"- run: {enclave: one}\n- ended: {enclave: one}\n  timeout: 1s":                                   "exceeded its timeout of 1s: it has not ended",
		"- run: {enclave: one}\n- poll: {enclave: one, within: 1s}":                                       "POLLHUP did not come",
		"- run: {enclave: one}\n- slot: {enclave: one, state: stopped}":                                   "its state is running, not stopped",
		"- run: {enclave: one}\n- slot: {enclave: one, cpus: 4}":                                          "it has 2 vCPUs, not 4",
		"- run: {enclave: one}\n- console: {enclave: one, regexp: nothing}\n  timeout: 3s":                `the console does not show "nothing"; it ends with`,
		"- run: {enclave: one}\n- call: {enclave: one, command: env, answer: FOO}":                        `the answer "PATH=/sbin:/usr/sbin:/bin:/usr/bin" does not match "FOO"`,
		"- run: {enclave: one}\n- seen: {regexp: nothing like this}":                                      `"nothing like this" was not seen`,
		"- run: {enclave: one}\n- seen: {regexp: SLOT_ADD_VCPU, count: 3}":                                "was seen 2 times, not 3",
		"- run: {enclave: one}\n- seen: {regexp: ENCLAVE_START, then: [SLOT_ALLOC]}":                      `"SLOT_ALLOC" was not seen after "ENCLAVE_START"`,
		"- run: {enclave: one}\n- seen: {regexp: SLOT_ALLOC, then: [ENCLAVE_START], after: 1m}":           "less than 1m0s",
		"- pci: {command: SLOT_FREE, fields: {slot_uid: 3}}":                                              "rc is -ENOENT, not 0",
		"- pci: {command: SLOT_COUNT, reply: {slot_count: 3}}":                                            "slot_count is 0, not 3",
		"- run: {enclave: one}\n- call: {enclave: one, command: panic}\n- ended: {enclave: one, code: 3}": "guest panic",
		"- listen: {as: l, port: 7000}\n- accept: {as: c, on: l}\n  timeout: 1s":                          "exceeded its timeout of 1s",
		"- sleep: {for: 1h, why: it is long}":                                                             "the scenario exceeded its timeout of 10m0s",
	} {
		r := play(t, "name: fails\nsteps:\n"+steps)
		require.Equal(t, trace.Failed, r.Status, steps)
		require.Contains(t, r.Error, want, steps)
	}
}

func TestAConnectionThatDoesNotSayWhatItShouldFails(t *testing.T) {
	for expect, want := range map[string]string{
		"text: hullo":  `"hello" arrived, not "hullo"`,
		"text: hello!": "5 of 6 bytes arrived: ",
		"eof: true":    `"h" arrived, where nothing is expected`,
		"silent: true": `"h" arrived, where nothing is expected`,
		"regexp: bye":  `"hello" arrived, which does not match "bye"`,
		"size: 3":      `"hel" arrived, not "\x00\x01\x02"`,
	} {
		r := play(t, `
name: fails
steps:
- run: {enclave: one}
- dial: {as: echo, enclave: one, port: 5005}
- send: {on: echo, text: hello}
- expect: {on: echo, `+expect+`}
  timeout: 1s
`)
		require.Equal(t, trace.Failed, r.Status, expect)
		require.Contains(t, r.Error, want, expect)
	}
}

func TestTheFirstBranchThatFailsEndsTheOthers(t *testing.T) {
	r := play(t, `
name: fails
steps:
- parallel:
    slow:
    - sleep: {for: 5m, why: the other branch is quicker}
    - create: {enclave: two}
    quick:
    - create: {enclave: one}
      expect_error: ENOSPC
- create: {enclave: three}
`)
	require.Equal(t, trace.Failed, r.Status)
	require.Equal(t, []trace.Status{trace.Failed, trace.NotRun, trace.NotRun, trace.Failed, trace.NotRun}, statuses(r))
	require.Equal(t, "cut short: a step of another branch failed", r.Steps[1].Error)
	require.Equal(t, "slow", r.Steps[1].Branch)
	require.Equal(t, "quick", r.Steps[3].Branch)
	require.Less(t, r.Steps[0].Elapsed, time.Second)
}

func TestWhatABranchDoesIsToldWithItsStep(t *testing.T) {
	r := play(t, `
name: branches
steps:
- parallel:
    a:
    - run: {enclave: one}
    - terminate: {enclave: one}
    b:
    - run: {enclave: two}
    - terminate: {enclave: two}
`)
	require.Equal(t, trace.Passed, r.Status, r.Error)
	commands, replies, calls := map[int]int{}, map[int]int{}, map[string]map[string]int{"one": {}, "two": {}}
	for _, e := range r.Entries {
		switch e.Kind {
		case trace.Command:
			commands[e.Step]++
		case trace.Interrupt:
			replies[e.Step]++
		case trace.Ioctl:
			calls[e.Lane][r.Steps[e.Step-1].Branch]++
		}
	}
	require.Equal(t, map[int]int{2: 5, 3: 2, 4: 5, 5: 2}, commands)
	require.Equal(t, commands, replies)
	require.Equal(t, map[string]map[string]int{"one": {"a": 6}, "two": {"b": 6}}, calls)
}

func TestLeftoversAreTold(t *testing.T) {
	const steps = `
faults:
- {at: reply, do: errno, errno: EIO, command: ENCLAVE_START}
steps:
- run: {enclave: one}
  expect_error: EIO
- exit_process: {process: main}
  expect_error: EBUSY
`
	r := play(t, "name: leaves\n"+steps)
	require.Equal(t, trace.Failed, r.Status)
	require.Contains(t, r.Error, "afterwards: 1 slot is left over, the first that of one")
	require.Equal(t, trace.Passed, play(t, "name: leaves\nleftovers: true\n"+steps).Status)
	r = play(t, "name: leaves nothing\nleftovers: true\nsteps: [{create: {enclave: one}}]")
	require.Contains(t, r.Error, "nothing is left over, where the scenario expects it")
}

func TestWhatIsNotMeantForAnEngineIsSkipped(t *testing.T) {
	s := parse(t, "name: real\nengines: [qemu]\nsteps: [{create: {enclave: one}}]")[0]
	r := run.Run(t.Context(), s, run.Options{Engine: stage.Scripted})
	require.Equal(t, trace.Skipped, r.Status)
	require.Equal(t, "not for the scripted engine", r.Error)
}

func TestProgramsAreRunBesideRealMachines(t *testing.T) {
	exec := func(parameters string) trace.Result {
		s := parse(t, "name: program\nengines: [qemu]\nsteps:\n- create: {enclave: my one}\n- exec: "+parameters)[0]
		return run.Run(t.Context(), s, run.Options{Engine: stage.QEMU})
	}
	r := exec(`{command: "echo CID $NESIM_CID_MY_ONE; exit 3", code: 3, output: "^CID 0"}`)
	require.Equal(t, trace.Passed, r.Status, r.Error)
	require.Contains(t, exec(`{command: "echo no >&2; exit 1"}`).Error, "exit code 1, not 0: no")
	require.Contains(t, exec(`{command: echo hi, output: bye}`).Error, `the output "hi\n" does not match "bye"`)
	left := filepath.Join(t.TempDir(), "left")
	r = exec(`{command: "sleep 300 & echo $! >` + left + `"}`)
	require.Equal(t, trace.Passed, r.Status, r.Error)
	pid, err := os.ReadFile(left)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		state, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/stat")
		return err != nil || strings.Contains(string(state), ") Z ") // gone, but for who should wait for it
	}, time.Minute, 10*time.Millisecond, "what a program leaves in the background ends with its step")
	began := time.Now()
	require.Contains(t, exec("{command: sleep 50 & sleep 50}\n  timeout: 100ms").Error, "the step exceeded its timeout of 100ms")
	require.Less(t, time.Since(began), 30*time.Second, "its children end with it")
}

func TestImagesAreBuiltOfFolders(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "app"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "app/cmd"), []byte("/app\n"), 0o600))
	build := func(folder string) trace.Result {
		s := parse(t, "name: builds\nsteps:\n- build: {as: it, rootfs: "+folder+", cmdline: quiet, sign: valid}\n- run: {enclave: one, image: it}")[0]
		s.File = filepath.Join(dir, "builds.yaml")
		return run.Run(t.Context(), s, run.Options{Engine: stage.Scripted})
	}
	r := build("app")
	require.Equal(t, trace.Passed, r.Status, r.Error)
	require.Contains(t, build("none").Error, "build image it: pack folder "+dir+"/none: ")
}

func TestProgramsTalkToEnclavesByUNIXSockets(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	ready := filepath.Join(t.TempDir(), "ready")
	program := func(role string) string { return fmt.Sprintf("%s=%s READY='%s' '%s'", roleVariable, role, ready, self) }
	s := parse(t, `
name: programs talk
engines: [qemu]
steps:
- create: {enclave: one}
- add_memory: {enclave: one, size: 128M, image: hello}
- add_cpu: {enclave: one, count: 2}
- parallel:
    parent:
    - exec: {command: "`+program("hear")+`", listen: [9000], output: "^heard 0xb7"}
    enclave:
    - exec: {command: "until [ -e '`+ready+`' ]; do sleep 0.01; done"}
    - start: {enclave: one, unheard: true}
- exec: {command: "`+program("talk")+`", output: "^OK [0-9]+ hello"}
- terminate: {enclave: one}
- exec: {command: "echo [$NESIM_VSOCK_ONE] $NESIM_VSOCK_PARENT", output: "^\\[\\] .+/parent"}
`)[0]
	t.Setenv("TMPDIR", folder(t))
	r := run.Run(t.Context(), s, run.Options{Engine: stage.QEMU})
	require.Equal(t, trace.Passed, r.Status, r.Error)
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "nesim-exec-*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

// folder is one for sockets: t.TempDir's names are too long.
func folder(t *testing.T) string {
	dir, err := os.MkdirTemp("", "nesim-run-")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestAPortThatIsTakenIsNotForAProgram(t *testing.T) {
	s := parse(t, `
name: taken
engines: [qemu]
steps:
- listen: {as: taken, port: 7000}
- exec: {command: "true", listen: [7001, 7000]}
  expect_error: EADDRINUSE
- close: {on: taken}
- exec: {command: "true", listen: [7001, 7000]}
`)[0]
	r := run.Run(t.Context(), s, run.Options{Engine: stage.QEMU})
	require.Equal(t, trace.Passed, r.Status, r.Error)
}

func TestAStageThatCannotBeSetIsAnError(t *testing.T) {
	r := play(t, "name: bad stage\ninstance: {ne_cpus: \"99\"}\nsteps: [{create: {enclave: one}}]")
	require.Equal(t, trace.Broken, r.Status)
	require.Contains(t, r.Error, "set the stage: set the CPU pool 99")
	require.Equal(t, []trace.Status{trace.NotRun}, statuses(r))
}

func TestNothingIsRunAfterAnInterrupt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	all := run.All(ctx, parse(t, life), run.Options{Engine: stage.Scripted}, 0, nil)
	require.Equal(t, 1, all.Count(trace.Skipped))
}

func TestScenariosRunSideBySideAndAreTold(t *testing.T) {
	var list []*scenarios.Scenario
	for range 20 {
		list = append(list, parse(t, life)...)
	}
	told := 0
	all := run.All(t.Context(), list, run.Options{Engine: stage.Scripted, Seed: 7}, 4, func(r trace.Result) { told++ })
	require.Equal(t, 20, told)
	require.Equal(t, 20, all.Count(trace.Passed))
	for _, r := range all.Results {
		require.EqualValues(t, 7, r.Seed)
		require.Equal(t, all.Results[0].Entries, r.Entries)
	}
}

func TestTagsChoose(t *testing.T) {
	list := parse(t, "name: a\ntags: [x, y]\nsteps: [{create: {enclave: one}}]\n---\nname: b\nsteps: [{create: {enclave: one}}]")
	require.Len(t, run.Choose(list, nil), 2)
	require.Len(t, run.Choose(list, []string{"y", "z"}), 1)
	require.Empty(t, run.Choose(list, []string{"z"}))
}

func TestFoldersAreRead(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	_, err := run.Load(t.Context(), dir)
	require.ErrorContains(t, err, "no .yaml file is in this folder")
	write("b.yaml", "name: b\nsteps:\n- include: parts/_boot.yaml\n- terminate: {enclave: one}\n")
	write("a/a.yml", "name: a\nsteps: [{create: {enclave: one}}]")
	write("parts/_boot.yaml", "- run: {enclave: one}\n")
	write("notes.txt", "not a scenario")
	list, err := run.Load(t.Context(), dir)
	require.NoError(t, err)
	require.Len(t, list, 2)
	require.Equal(t, "a", list[0].Name)
	r := run.Run(t.Context(), list[1], run.Options{Engine: stage.Scripted})
	require.Equal(t, trace.Passed, r.Status, r.Error)
	require.True(t, strings.HasSuffix(r.Steps[0].File, "_boot.yaml"))
	_, err = run.Load(t.Context(), filepath.Join(dir, "none.yaml"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// BenchmarkLife is how many lives of an enclave are played in a second.
func BenchmarkLife(b *testing.B) {
	s := parse(b, life)[0]
	for b.Loop() {
		r := run.Run(b.Context(), s, run.Options{Engine: stage.Scripted})
		require.Equal(b, trace.Passed, r.Status, r.Error)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "scenarios/s")
}

// BenchmarkFourLivesAtOnce compares four lives on real machines at the same time with the same four one after the other.
func BenchmarkFourLivesAtOnce(b *testing.B) {
	var four []*scenarios.Scenario
	for range 4 {
		four = append(four, parse(b, life)...)
	}
	play := func(parallel int) time.Duration {
		began := time.Now()
		all := run.All(b.Context(), four, run.Options{Engine: stage.QEMU}, parallel, nil)
		require.Equal(b, 4, all.Count(trace.Passed), "%+v", all.Results)
		return time.Since(began)
	}
	play(4) // makes the image
	var once, inTurn time.Duration
	for b.Loop() {
		once += play(4)
		inTurn += play(1)
	}
	b.ReportMetric(once.Seconds()/float64(b.N), "at-once-s")
	b.ReportMetric(inTurn.Seconds()/float64(b.N), "in-turn-s")
	b.ReportMetric(inTurn.Seconds()/once.Seconds(), "times-faster")
	b.ReportMetric(0, "ns/op")
}

func TestEachFaultIsCountedAndOneThatNeverStruckFailsAStrictRun(t *testing.T) {
	text := `name: faults
faults:
- {name: twice, at: reply, do: delay, for: 1ms, command: SLOT_ADD_VCPU}
- {name: never, at: reply, do: delay, for: 1ms, command: SLOT_ADD_VCPU, nth: 99}
- {name: far, at: vsock, do: stall, bytes: 1000, port: 5005}
- {name: near, at: vsock, do: stall, bytes: 2, port: 5005}
steps:
- run: {enclave: one, cpus: 2}
- dial: {enclave: one, port: 5005, as: a}
- send: {on: a, text: "123"}
  timeout: 1s
  expect_error: ETIMEDOUT
- fault: {name: armed late, at: event, do: lose}
- terminate: {enclave: one}
`
	play := func(text string, strict bool) trace.Result {
		list, err := steps.Language.Parse("faults.yaml", []byte(text))
		require.NoError(t, err)
		return run.Run(t.Context(), list[0], run.Options{Engine: stage.Scripted, Strict: strict})
	}
	r := play(text, false)
	require.Equal(t, trace.Passed, r.Status, r.Error)
	require.Equal(t, []trace.FaultResult{
		{Name: "twice", File: "faults.yaml", Line: 3, Struck: 2},
		{Name: "never", File: "faults.yaml", Line: 4},
		{Name: "far", File: "faults.yaml", Line: 5},
		{Name: "near", File: "faults.yaml", Line: 6, Struck: 1},
		{Name: "armed late", File: "faults.yaml", Line: 13},
	}, r.Faults)
	for _, r := range []trace.Result{play(text, true), play("strict: true\n"+text, false)} {
		require.Equal(t, trace.Failed, r.Status)
		require.Contains(t, r.Error, "the fault never (faults.yaml:")
		require.Contains(t, r.Error, ") never struck")
	}
}
