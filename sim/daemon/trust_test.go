package daemon

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/sim/instance"
)

// nobody is a user with no rights.
const nobody = 65534

// everyCommand sends the daemon of a folder each kind of request and returns the errors.
func everyCommand(t *testing.T, dir string) map[string]error {
	t.Helper()
	ctx := t.Context()
	c := NewClient(dir)
	c.timeout = 200 * time.Millisecond
	errs := map[string]error{"shutdown": c.Shutdown(ctx)}
	_, errs["about"] = c.About(ctx)
	_, errs["run"] = c.Run(ctx, instance.RunSpec{}, func(string) {})
	_, errs["describe"] = c.Enclaves(ctx, false)
	_, errs["terminate"] = c.Terminate(ctx, instance.Ref{ID: "i"})
	_, errs["wait"] = c.Wait(ctx, instance.Ref{ID: "i"})
	_, errs["console"] = c.Console(ctx, instance.Ref{ID: "i"})
	_, errs["dial"] = c.DialVsock(ctx, 3, 1, true)
	_, errs["accept"] = c.AcceptVsock(ctx, 1)
	_, errs["accept kept"] = c.AcceptKept(ctx, 1)
	_, errs["attach"] = c.AttachParent(ctx)
	return errs
}

// beSomebody names, in a helper's environment, the folder in which it listens as another user's daemon would.
const beSomebody = "NESIM_TEST_LISTEN_AS_ANOTHER"

// listenAsAnother makes a folder with a socket where the victim's would be, and prints all that is sent there.
func listenAsAnother(dir string) {
	l, err := net.Listen("unix", filepath.Join(dir, socketName))
	if err == nil {
		err = os.Chmod(filepath.Join(dir, socketName), 0o777)
	}
	if err != nil {
		fmt.Println("error:", err)
		return
	}
	fmt.Println("listening as", os.Getuid())
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		got, _ := io.ReadAll(conn)
		fmt.Printf("got %q\n", got)
	}
}

// another runs the helper as another user, until the test ends. The returned function ends it and gives what it printed.
func another(t *testing.T, dir string) (printed func() string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	self, err := os.Executable()
	require.NoError(t, err)
	copied := filepath.Join(openFolder(t), "helper") // the test's own folder is closed to others
	raw, err := os.ReadFile(self)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(copied, raw, 0o755))
	cmd := exec.Command(copied)
	cmd.Env = append(os.Environ(), beSomebody+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewReader(out)
	first, err := lines.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf("listening as %d\n", nobody), first)
	end := func() string {
		_ = cmd.Process.Kill()
		rest, _ := io.ReadAll(lines)
		_ = cmd.Wait()
		return string(rest)
	}
	t.Cleanup(func() { end() })
	return end
}

// openFolder makes a folder that every user can enter.
func openFolder(t *testing.T) string {
	dir := folder(t)
	require.NoError(t, os.Chmod(dir, 0o755))
	return dir
}

// Another user makes the victim's folder first, with a socket that answers: nothing may reach him.
func TestAnotherUsersDaemonGetsNothing(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	theirs := folder(t)
	require.NoError(t, os.Chown(theirs, nobody, nobody))
	printed := another(t, theirs)
	for command, err := range everyCommand(t, theirs) {
		require.Error(t, err, command)
		require.NotErrorAs(t, err, new(*NotRunningError), command)
		oneLine(t, err, "it belongs to user 65534")
	}
	_, err := Ensure(t.Context(), theirs, "no-such-program")
	oneLine(t, err, "it belongs to user 65534")
	oneLine(t, Run(t.Context(), testConfig(theirs)), "it belongs to user 65534")
	oneLine(t, CheckDir(theirs), "it belongs to user 65534")
	require.Empty(t, printed())
}

// A folder of the victim's own that was open once may hold another's socket.
func TestAnotherUsersSocketInOnesOwnFolderGetsNothing(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	own := folder(t)
	require.NoError(t, os.Chmod(own, 0o777))
	printed := another(t, own)
	require.NoError(t, os.Chmod(own, 0o700))
	for command, err := range everyCommand(t, own) {
		oneLine(t, err, "nesim.sock is not private to you: it belongs to user 65534")
		require.NotErrorAs(t, err, new(*NotRunningError), command)
	}
	// Even with the right owner and mode the listener's process counts.
	require.NoError(t, os.Chown(filepath.Join(own, socketName), os.Getuid(), os.Getgid()))
	require.NoError(t, os.Chmod(filepath.Join(own, socketName), 0o600))
	for command, err := range everyCommand(t, own) {
		oneLine(t, err, "of user 65534 is at the other end")
		require.NotErrorAs(t, err, new(*NotRunningError), command)
	}
	require.NotContains(t, printed(), "HTTP")
}

// A link laid in a shared folder leads elsewhere: nothing is opened, made or removed there.
func TestALinkInTheWayOfTheFolderIsNotFollowed(t *testing.T) {
	shared, target := folder(t), folder(t)
	require.NoError(t, os.Chmod(shared, 0o1777))
	link := filepath.Join(shared, "nesim-1")
	require.NoError(t, os.Symlink(target, link))
	require.NoError(t, os.Lchown(link, nobody, nobody))
	for _, dir := range []string{link, filepath.Join(link, "below")} {
		for _, err := range everyCommand(t, dir) {
			oneLine(t, err, "symbolic link")
		}
		oneLine(t, Run(t.Context(), testConfig(dir)), "symbolic link")
		_, err := Ensure(t.Context(), dir, "no-such-program")
		oneLine(t, err, "symbolic link")
	}
	left, err := os.ReadDir(target)
	require.NoError(t, err)
	require.Empty(t, left)
}

// shutdown looked at the lock of a folder, and made the file that a link of that name led to.
func TestALinkNamedLockIsNotFollowed(t *testing.T) {
	for _, name := range []string{lockName, logName} {
		dir := folder(t)
		t.Setenv("NESIM_DIR", dir) // for the daemon that Ensure starts
		target := filepath.Join(folder(t), "made")
		require.NoError(t, os.Symlink(target, filepath.Join(dir, name)))
		require.ErrorAs(t, NewClient(dir).Shutdown(t.Context()), new(*NotRunningError))
		if name == lockName {
			oneLine(t, Run(t.Context(), testConfig(dir)), "lock is not private to you: it is a symbolic link")
		}
		_, err := Ensure(t.Context(), dir, os.Args[0], "serve")
		oneLine(t, err, "it is a symbolic link")
		require.NoFileExists(t, target)
	}
}

// listening makes a socket in a folder that is never accepted on, with room for no more than n connections.
func listening(t *testing.T, dir string, n int) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	require.NoError(t, unix.Fchmod(fd, 0o600))
	require.NoError(t, unix.Bind(fd, &unix.SockaddrUnix{Name: filepath.Join(dir, socketName)}))
	require.NoError(t, unix.Listen(fd, n))
}

// A daemon that cannot be reached may have enclaves: nobody may take it for none.
func TestADaemonThatCannotBeReachedIsNotTakenForNone(t *testing.T) {
	hung := folder(t)
	listening(t, hung, 64)
	full := folder(t)
	listening(t, full, 0)
	for range 2 {
		conn, err := net.DialTimeout("unix", filepath.Join(full, socketName), time.Second)
		if err == nil {
			defer conn.Close()
		}
	}
	long := filepath.Join(folder(t), strings.Repeat("x", 120))
	noSocket := folder(t)
	require.NoError(t, os.WriteFile(filepath.Join(noSocket, socketName), nil, 0o600))
	for dir, want := range map[string]string{
		hung:     "does not answer within 200ms",
		full:     "does not answer within 200ms",
		long:     "too long a name",
		noSocket: "it is not a socket",
	} {
		for command, err := range everyCommand(t, dir) {
			oneLine(t, err, want)
			require.NotErrorAs(t, err, new(*NotRunningError), command)
		}
	}
	require.ErrorContains(t, everyCommand(t, hung)["describe"], fmt.Sprintf("process %d,", os.Getpid()))
}

// beRefused names, in a helper's environment, a folder whose daemon it asks.
const beRefused = "NESIM_TEST_ASK_AS_ANOTHER"

func askAsAnother(dir string) {
	_, err := NewClient(dir).Enclaves(context.Background(), false)
	fmt.Println(err)
}

func TestAFolderThatMayNotBeEnteredIsNotTakenForNone(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	above := folder(t) // root's, 0700
	dir := filepath.Join(above, "nesim")
	require.NoError(t, os.Mkdir(dir, 0o700))
	raw, err := os.ReadFile(os.Args[0])
	require.NoError(t, err)
	helper := filepath.Join(openFolder(t), "helper")
	require.NoError(t, os.WriteFile(helper, raw, 0o755))
	cmd := exec.Command(helper)
	cmd.Env = append(os.Environ(), beRefused+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.Output()
	require.NoError(t, err)
	require.Contains(t, string(out), "cannot reach the daemon")
	require.Contains(t, string(out), "permission denied")
}
