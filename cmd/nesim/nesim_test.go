package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/sim/instance"
)

// beNesim makes the test binary the program itself, so that tests run its commands as users do, daemon and all.
const beNesim = "NESIM_TEST_BE_NESIM"

func TestMain(m *testing.M) {
	if key := os.Getenv(beSigner); key != "" {
		signElsewhere(key)
		os.Exit(0)
	}
	if os.Getenv(beNesim) != "" {
		main()
		os.Exit(0)
	}
	code := m.Run()
	if fixture.dir != "" {
		os.RemoveAll(fixture.dir)
	}
	os.Exit(code)
}

// fixture is the hello enclave's image, built once.
var fixture struct {
	once     sync.Once
	dir, eif string
}

// limit is generous: under TCG on a busy machine a boot can take a minute.
const limit = 4 * time.Minute

// user is somebody with a daemon of his own.
type user struct {
	testing.TB
	dir string
}

// newUser returns a user whose daemon is shut down, and found to have left nothing, at the test's end.
func newUser(t testing.TB) *user {
	dir, err := os.MkdirTemp("", "nesim-test-") // t.TempDir's names are too long for sockets
	require.NoError(t, err)
	u := &user{t, dir}
	t.Cleanup(func() {
		u.must("shutdown")
		u.requireNothingLeft()
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, "nesim.log"))
			t.Logf("the daemon's log:\n%s", log)
		}
		os.RemoveAll(dir)
	})
	return u
}

// command prepares a nesim command.
func (u *user) command(ctx context.Context, args ...string) *exec.Cmd {
	self, err := os.Executable()
	require.NoError(u, err)
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Env = append(os.Environ(), beNesim+"=1", "NESIM_DIR="+u.dir, "XDG_DATA_HOME="+filepath.Join(u.dir, "data"))
	return cmd
}

// run runs a nesim command to its end.
func (u *user) run(stdin string, args ...string) (stdout, stderr string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := u.command(ctx, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err = cmd.Run()
	require.NoError(u, ctx.Err(), "nesim %v took too long\n%s", args, errs.String())
	return out.String(), errs.String(), err
}

// must runs a nesim command that has to succeed, and returns what it printed.
func (u *user) must(args ...string) string {
	u.Helper()
	stdout, stderr, err := u.run("", args...)
	require.NoError(u, err, "nesim %v: %s", args, stderr)
	return stdout
}

// refused runs a nesim command that has to fail, and returns its error, which must be one line for people.
func (u *user) refused(args ...string) string {
	u.Helper()
	_, stderr, err := u.run("", args...)
	exit := (*exec.ExitError)(nil)
	require.ErrorAs(u, err, &exit, "nesim %v was not refused", args)
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	last := lines[len(lines)-1]
	require.True(u, strings.HasPrefix(last, "nesim: "), stderr)
	u.requireCode(last, exit.ExitCode())
	for _, dump := range []string{"goroutine ", "\npanic:", "runtime error", ".go:"} {
		require.NotContains(u, "\n"+stderr, dump)
	}
	return last
}

// requireCode checks that a command exited with the number of the code that its error names, as nitro-cli does.
func (u *user) requireCode(line string, exit int) {
	u.Helper()
	code := regexp.MustCompile(`^nesim: \[E(\d\d)\] `).FindStringSubmatch(line)
	switch {
	case exit == exitUsage: // the command line's parser has no codes in nitro-cli
	case code == nil:
		require.Equal(u, 1, exit, line)
	default:
		number, err := strconv.Atoi(code[1])
		require.NoError(u, err)
		require.Equal(u, number, exit, line)
	}
}

// runHello runs the hello enclave.
func (u *user) runHello(more ...string) (info instance.RunInfo) {
	u.Helper()
	args := append([]string{"run-enclave", "--eif-path", u.hello(), "--cpu-count", "2", "--memory", "256", "--debug-mode"}, more...)
	require.NoError(u, json.Unmarshal([]byte(u.must(args...)), &info))
	return info
}

// hello returns the path of the hello enclave's image.
func (u *user) hello() string {
	u.Helper()
	fixture.once.Do(func() {
		dir, err := os.MkdirTemp("", "nesim-hello-")
		require.NoError(u, err)
		fixture.dir = dir
		fixture.eif = filepath.Join(dir, "hello.eif")
		u.must("build-enclave", "--rootfs", helloFolder(u, dir), "--output-file", fixture.eif)
	})
	require.NotEmpty(u, fixture.eif)
	require.FileExists(u, fixture.eif)
	return fixture.eif
}

// helloFolder makes a folder with the hello workload, as somebody would by hand.
func helloFolder(t require.TestingT, dir string) string {
	rootfs := filepath.Join(dir, "rootfs")
	require.NoError(t, os.Mkdir(rootfs, 0o755))
	program, err := os.ReadFile("../../eif/pack/programs/hello")
	require.NoError(t, err, "make programs builds it")
	require.NoError(t, os.WriteFile(filepath.Join(rootfs, "hello"), program, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(rootfs, "cmd"), []byte("/hello\n"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(rootfs, "env"), []byte("GREETING=hello\n"), 0o644))
	return rootfs
}

func (u *user) enclaves() (list []instance.Description) {
	u.Helper()
	require.NoError(u, json.Unmarshal([]byte(u.must("describe-enclaves")), &list))
	return list
}

func (u *user) wait(enclave string) (ending instance.Ending) {
	u.Helper()
	require.NoError(u, json.Unmarshal([]byte(u.must("wait-enclave", "--enclave-name", enclave)), &ending))
	return ending
}

// ask sends hello's command port a line and returns the answer.
func (u *user) ask(cid, line string) string {
	u.Helper()
	stdout, _, _ := u.run(line+"\n", "vsock", "dial", "--wait", cid, "5006") // the connection may break: that is the point
	return strings.TrimSpace(stdout)
}

// requireNothingLeft looks for processes and sockets of the user's daemon.
func (u *user) requireNothingLeft() {
	u.Helper()
	require.Empty(u, u.processes(""))
	err := filepath.WalkDir(u.dir, func(path string, d fs.DirEntry, err error) error {
		require.NoError(u, err)
		require.Zero(u, d.Type()&fs.ModeSocket, "socket left: %s", path)
		return nil
	})
	require.NoError(u, err)
}

// processes lists the processes that name the user's folder on their command line and have the word on it too.
func (u *user) processes(word string) (pids []string) {
	u.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(u, err)
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err == nil && bytes.Contains(line, []byte(u.dir)) && bytes.Contains(line, []byte(word)) {
			pids = append(pids, filepath.Base(filepath.Dir(file)))
		}
	}
	return pids
}
