package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/internal/guestwire"
)

func TestAnArgumentIsALine(t *testing.T) {
	for text, want := range map[string][]string{
		"":                  nil,
		"/bin/app":          {"/bin/app"},
		"/bin/app\n":        {"/bin/app"},
		"sh\n-c\n echo a\n": {"sh", "-c", " echo a"},
		"app\n\nlast\n":     {"app", "", "last"},
	} {
		require.Equal(t, want, splitLines(text), "%q", text)
	}
}

func TestConnectWaitsWithoutBlocking(t *testing.T) {
	tcp := func() int {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		require.NoError(t, err)
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	to, from := tcp(), tcp()
	require.NoError(t, unix.Bind(to, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	addr, err := unix.Getsockname(to)
	require.NoError(t, err)
	require.ErrorIs(t, connect(tcp(), addr), unix.ECONNREFUSED)

	require.NoError(t, unix.Listen(to, 1))
	require.NoError(t, connect(from, addr))
	flags, err := unix.FcntlInt(uintptr(from), unix.F_GETFL, 0)
	require.NoError(t, err)
	require.Zero(t, flags&unix.O_NONBLOCK, "from here on it may block")
}

func TestTheWorkloadIsReadOnce(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}

	write("cmd", "/app\n-v\n")
	write("env", "A=1\nB=two words\n")
	write("workdir", "/srv/my app\n")
	write("user", "1000\n100\n7\n8\n")
	w, err := readWorkload(dir)
	require.NoError(t, err)
	require.Equal(t, program{
		argv: []string{"/app", "-v"}, env: []string{"A=1", "B=two words"}, dir: "/srv/my app",
		user: &syscall.Credential{Uid: 1000, Gid: 100, Groups: []uint32{7, 8}},
	}, w)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)

	write("cmd", "/app\n")
	write("env", "")
	w, err = readWorkload(dir)
	require.NoError(t, err)
	require.Equal(t, program{argv: []string{"/app"}, env: []string{"PATH=" + guestwire.SearchPath}, dir: "/"}, w, "as AWS's tools pack it")

	write("cmd", "\n-v\n")
	_, err = readWorkload(dir)
	require.ErrorContains(t, err, "names no program to run")
}

func TestAUserIsNumbers(t *testing.T) {
	for _, lines := range [][]string{{"1"}, {"root", "0"}, {"-1", "0"}, {"0", "4294967296"}, {"", ""}} {
		_, err := parseUser(lines)
		require.ErrorContains(t, err, "/user: ", "%q", lines)
	}
}

func TestTheWorkingDirectoryMustBeThere(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, program{dir: dir}.prepare())
	require.ErrorContains(t, program{dir: dir + "/none"}.prepare(), "no such file or directory")
	require.NoError(t, os.WriteFile(dir+"/file", nil, 0o600))
	require.ErrorContains(t, program{dir: dir + "/file"}.prepare(), "is no directory")
}

func TestAProgramIsFoundByItsPathOrItsName(t *testing.T) {
	path, err := findProgram("./no/such", nil)
	require.NoError(t, err)
	require.Equal(t, "./no/such", path)

	path, err = findProgram("sh", nil)
	require.NoError(t, err)
	require.Contains(t, path, "/bin/sh")

	_, err = findProgram("no-such-program", nil)
	require.EqualError(t, err, `no program "no-such-program" in /sbin:/usr/sbin:/bin:/usr/bin`)

	own := t.TempDir()
	require.NoError(t, os.WriteFile(own+"/own-program", nil, 0o700))
	path, err = findProgram("own-program", []string{"A=1", "PATH=relative:" + own})
	require.NoError(t, err)
	require.Equal(t, own+"/own-program", path)
}

func TestOnlyEnabledControllersAreMounted(t *testing.T) {
	list := "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t1\t1\nmemory\t0\t1\t0\npids\t0\t1\t1\nodd line\n"
	require.Equal(t, []string{"cpu", "pids"}, enabledControllers([]byte(list)))
}

// FuzzWorkload reads arbitrary files that describe a workload: what they say in lines is what it is started with.
func FuzzWorkload(f *testing.F) {
	f.Add("/app\n-v\n", "A=1\nB=two words\n", "/srv\n", "1000\n100\n7\n")
	f.Add("app", "", "", "")
	f.Add("\n", "\n\n", "\n", "-1\n")
	f.Add("0", "\n", "\n", "") // a working directory without a name
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, cmd, env, workdir, user string) {
		for name, text := range map[string]string{"cmd": cmd, "env": env, "workdir": workdir, "user": user} {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
		}
		w, err := readWorkload(dir)
		if err != nil {
			return
		}
		require.NotEmpty(t, w.argv[0])
		require.NotEmpty(t, w.env)
		require.NotEmpty(t, w.dir)
		require.Equal(t, strings.TrimSuffix(cmd, "\n"), strings.Join(w.argv, "\n"))
		if env != "" {
			require.Equal(t, strings.TrimSuffix(env, "\n"), strings.Join(w.env, "\n"))
		}
		require.Equal(t, user == "", w.user == nil)
		if path, err := findProgram(w.argv[0], w.env); err == nil && !strings.Contains(w.argv[0], "/") {
			require.True(t, filepath.IsAbs(path))
		}
	})
}
