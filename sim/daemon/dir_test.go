package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/internal/private"
)

func TestAFolderIsCheckedWithoutBeingMade(t *testing.T) {
	base := folder(t)
	absent := filepath.Join(base, "a", "b")
	require.NoError(t, CheckDir(absent))
	require.NoDirExists(t, absent)
	require.NoError(t, CheckDir(base))
	for _, refused := range unfitFolders(t) {
		oneLine(t, CheckDir(refused.dir), refused.want)
	}
}

func TestOnlyAPrivateFolderIsUsed(t *testing.T) {
	dir := filepath.Join(folder(t), "a", "b")
	for range 2 {
		made, err := makePrivate(dir)
		require.NoError(t, err)
		require.NoError(t, made.Close())
	}
	info, err := os.Stat(dir)
	require.NoError(t, err)
	require.EqualValues(t, 0o700, info.Mode().Perm())
	for _, refused := range unfitFolders(t) {
		_, err := makePrivate(refused.dir)
		oneLine(t, err, refused.want)
		oneLine(t, Run(t.Context(), testConfig(refused.dir)), refused.want)
		_, err = Ensure(t.Context(), refused.dir, "no-such-program")
		oneLine(t, err, refused.want)
		require.LessOrEqual(t, strings.Count(err.Error(), "NESIM_DIR"), 1, "the advice is given once: %v", err)
		for command, err := range everyCommand(t, refused.dir) {
			require.Error(t, err, command)
			require.NotErrorAs(t, err, new(*NotRunningError), command)
			oneLine(t, err, refused.want)
		}
	}
}

// unfitFolders lists folders that no daemon may use.
func unfitFolders(t *testing.T) (all []struct{ dir, want string }) {
	base := folder(t)
	add := func(dir, want string) { all = append(all, struct{ dir, want string }{dir, want}) }
	for name, mode := range map[string]os.FileMode{"readable": 0o740, "enterable": 0o701, "writable": 0o720} {
		dir := filepath.Join(base, name)
		require.NoError(t, os.Mkdir(dir, 0o700))
		require.NoError(t, os.Chmod(dir, mode))
		add(dir, fmt.Sprintf("is open to other users (mode %04o): run chmod 700 %s,", mode, dir))
	}
	spaced := filepath.Join(base, "a b's")
	require.NoError(t, os.Mkdir(spaced, 0o755))
	add(spaced, `chmod 700 '`+base+`/a b'\''s'`)
	link := filepath.Join(base, "link") // could be turned to another folder later
	require.NoError(t, os.Symlink(folder(t), link))
	add(link, "is not private to you")
	others := "/" // root's
	if os.Getuid() == 0 {
		others = filepath.Join(base, "others")
		require.NoError(t, os.Mkdir(others, 0o700))
		require.NoError(t, os.Chown(others, 1, 1))
	}
	add(others, "is not private to you")
	add(filepath.Join(base, strings.Repeat("x", 100)), "NESIM_DIR")
	return all
}

func TestTheFolderIsFoundByTheEnvironment(t *testing.T) {
	t.Setenv("NESIM_DIR", "")
	t.Setenv("XDG_RUNTIME_DIR", "")
	t.Setenv("TMPDIR", "/somewhere")
	require.Regexp(t, `^/somewhere/nesim-\d+$`, Dir())
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/1")
	require.Equal(t, "/run/user/1/nesim", Dir())
	t.Setenv("NESIM_DIR", "here")
	wd, err := os.Getwd()
	require.NoError(t, err)
	require.Equal(t, filepath.Join(wd, "here"), Dir(), "the daemon may work in another folder")
}

// A client that looks whether a daemon has ended takes its lock for a moment.
func TestAGlanceAtTheLockKeepsNoDaemonFromStarting(t *testing.T) {
	dir := folder(t)
	d, err := private.Open(dir)
	require.NoError(t, err)
	defer d.Close()
	glance, err := lock(d, os.O_CREATE)
	require.NoError(t, err)
	time.AfterFunc(20*time.Millisecond, func() { glance.Close() })
	taken, err := hold(t.Context(), d)
	require.NoError(t, err)
	defer taken.Close()
	_, err = hold(t.Context(), d)
	require.ErrorIs(t, err, errHeld)
}
