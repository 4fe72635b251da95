package pack

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

var webFiles = map[string]string{
	"cmd":          "/bin/web\n-v",
	"env":          "PATH=/bin\n",
	"bin/web":      "a program",
	"etc/web.conf": "port=1",
	"var/":         "",
}

func TestAFolderBecomesTwoRamdisks(t *testing.T) {
	_, data := buildFolder(t, folder(t, webFiles))
	lists := ramdisks(t, data)
	require.Len(t, lists, 2)
	require.Equal(t, []string{"dev", "dev/console", "dev/null", "init"}, names(lists[0]))
	require.Equal(t, []string{
		"cmd", "env", "rootfs", "rootfs/bin", "rootfs/bin/web", "rootfs/dev", "rootfs/etc", "rootfs/etc/web.conf",
		"rootfs/proc", "rootfs/run", "rootfs/sys", "rootfs/tmp", "rootfs/var",
	}, names(lists[1]))
	_, cmd := find(t, lists[1], "cmd")
	require.Equal(t, "/bin/web\n-v\n", cmd)
	_, env := find(t, lists[1], "env")
	require.Equal(t, "PATH=/bin\n", env)
}

func TestTheSameFilesGiveTheSameImage(t *testing.T) {
	first := folder(t, webFiles)
	m1, data1 := buildFolder(t, first)

	second := t.TempDir()
	for _, name := range []string{"var/", "etc/web.conf", "env", "bin/web", "cmd"} { // made in another order
		path := filepath.Join(second, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		if !strings.HasSuffix(name, "/") {
			require.NoError(t, os.WriteFile(path, []byte(webFiles[name]), 0o644))
		}
	}
	require.NoError(t, os.MkdirAll(filepath.Join(second, "var"), 0o755))
	require.NoError(t, os.Chtimes(filepath.Join(second, "bin/web"), time.Now(), time.Unix(1e9, 0)))
	m2, data2 := buildFolder(t, second)
	require.True(t, m1.Equal(m2))
	require.Equal(t, data1, data2)
}

func TestPCR2IsTheApplicationsAlone(t *testing.T) {
	app, err := FromFolder(t.Context(), folder(t, webFiles))
	require.NoError(t, err)
	spec := testSpec(t, app)
	m, err := Build(t.Context(), spec)
	require.NoError(t, err)

	other := spec
	other.Application.Command = []string{"/bin/web", "-q"}
	o, err := Build(t.Context(), other)
	require.NoError(t, err)
	require.Equal(t, m.PCR1, o.PCR1)
	require.NotEqual(t, m.PCR2, o.PCR2)

	other = spec
	require.NoError(t, os.WriteFile(spec.Init, []byte("another init"), 0o600))
	o, err = Build(t.Context(), other)
	require.NoError(t, err)
	require.NotEqual(t, m.PCR1, o.PCR1)
	require.Equal(t, m.PCR2, o.PCR2)
}

func TestLinksAreStoredNotFollowed(t *testing.T) {
	outside := folder(t, map[string]string{"secret": "s3cret"})
	dir := folder(t, map[string]string{"cmd": "/busybox\n", "bin/busybox": "all in one"})
	require.NoError(t, os.Symlink(filepath.Join(outside, "secret"), filepath.Join(dir, "escape")))
	require.NoError(t, os.Symlink(outside, filepath.Join(dir, "dir")))
	require.NoError(t, os.Link(filepath.Join(dir, "bin/busybox"), filepath.Join(dir, "bin/ls")))

	_, data := buildFolder(t, dir)
	require.NotContains(t, string(data), "s3cret")
	list := ramdisks(t, data)[1]
	_, target := find(t, list, "rootfs/escape")
	require.Equal(t, filepath.Join(outside, "secret"), target)
	first, text := find(t, list, "rootfs/bin/busybox")
	require.Equal(t, "all in one", text)
	second, text := find(t, list, "rootfs/bin/ls")
	require.Empty(t, text, "a hard link stays one")
	require.Equal(t, first.Ino, second.Ino)
}

func TestALinkFromOutsideTheFolderDoesNotChangeTheImage(t *testing.T) {
	dir := folder(t, webFiles)
	m1, _ := buildFolder(t, dir)
	require.NoError(t, os.Link(filepath.Join(dir, "bin/web"), filepath.Join(t.TempDir(), "web")))
	m2, _ := buildFolder(t, dir)
	require.True(t, m1.Equal(m2))
}

func TestFoldersThatCannotBePackedSaySo(t *testing.T) {
	refuses := func(want string, files map[string]string, spoil func(dir string)) {
		t.Helper()
		dir := folder(t, files)
		if spoil != nil {
			spoil(dir)
		}
		app, err := FromFolder(t.Context(), dir)
		if err == nil {
			_, err = Build(t.Context(), testSpec(t, app))
		}
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "\n")
	}
	refuses("no file cmd: write the workload's arguments in it", map[string]string{"bin/app": ""}, nil)
	refuses("cmd: names no program to run", map[string]string{"cmd": "\n"}, nil)
	refuses("cmd: line 1 ends in a carriage return", map[string]string{"cmd": "/app\r\n"}, nil)
	refuses("cmd: line 1 holds a zero byte", map[string]string{"cmd": "/a\x00pp"}, nil)
	refuses(`env: line 2 is not KEY=VALUE: "oops"`, map[string]string{"cmd": "/app", "env": "A=\noops\n"}, nil)
	refuses("cmd is a directory: it should be a regular file", map[string]string{"cmd/": ""}, nil)
	refuses("cmd is 1048577 bytes long", map[string]string{"cmd": strings.Repeat("x", maxConfigSize+1)}, nil)
	refuses("env is a hard link to cmd: make it a file of its own", map[string]string{"cmd": "A=1"}, func(dir string) {
		require.NoError(t, os.Link(filepath.Join(dir, "cmd"), filepath.Join(dir, "env")))
	})
	refuses("run/s is a socket, which an enclave's root directory cannot hold: remove it", webFiles, func(dir string) {
		require.NoError(t, os.Mkdir(filepath.Join(dir, "run"), 0o755))
		l, err := net.Listen("unix", filepath.Join(dir, "run/s"))
		require.NoError(t, err)
		t.Cleanup(func() { l.Close() })
	})
}

func TestAMissingFolderIsNamed(t *testing.T) {
	_, err := FromFolder(t.Context(), "no/such")
	require.EqualError(t, err, "pack folder no/such: no/such: no such file or directory")
	_, err = FromFolder(t.Context(), filepath.Join(folder(t, webFiles), "cmd"))
	require.ErrorContains(t, err, "not a directory")
}

func TestAnUnreadableFileIsNamed(t *testing.T) {
	dir := folder(t, webFiles)
	require.NoError(t, os.Chmod(filepath.Join(dir, "etc/web.conf"), 0))
	if os.Geteuid() == 0 {
		t.Log("root reads everything")
		return
	}
	app, err := FromFolder(t.Context(), dir)
	require.NoError(t, err)
	_, err = Build(t.Context(), testSpec(t, app))
	require.ErrorContains(t, err, "etc/web.conf: permission denied")
}

// Between the listing and the reading somebody may put another file in a file's place.
func TestAFileReplacedMeanwhileIsNotRead(t *testing.T) {
	outside := folder(t, map[string]string{"secret": "a program"})
	for what, replace := range map[string]func(path string) error{
		"another file":     func(path string) error { return os.WriteFile(path, []byte("a program"), 0o600) },
		"a link outside":   func(path string) error { return os.Symlink(filepath.Join(outside, "secret"), path) },
		"a pipe":           func(path string) error { return unix.Mkfifo(path, 0o600) },
		"a link to a file": func(path string) error { return os.Symlink("../etc/web.conf", path) },
		"nothing":          func(string) error { return nil },
	} {
		t.Run(what, func(t *testing.T) {
			dir := folder(t, webFiles)
			app, err := FromFolder(t.Context(), dir)
			require.NoError(t, err)
			web := filepath.Join(dir, "bin/web")
			require.NoError(t, os.Rename(web, web+".old"))
			require.NoError(t, replace(web))
			spec := testSpec(t, app)
			_, err = Build(t.Context(), spec)
			require.ErrorContains(t, err, "bin/web")
			require.NoFileExists(t, spec.Output)
		})
	}
}

func TestListingAFolderStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := FromFolder(ctx, folder(t, webFiles))
	require.ErrorIs(t, err, context.Canceled)
}
