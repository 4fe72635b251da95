package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
)

// Dir returns the folder that holds the daemon's sockets: $NESIM_DIR, else nesim in $XDG_RUNTIME_DIR, else
// nesim-UID in the folder for temporary files.
func Dir() string {
	if dir := os.Getenv("NESIM_DIR"); dir != "" {
		if abs, err := filepath.Abs(dir); err == nil {
			return abs
		}
		return dir
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "nesim")
	}
	return filepath.Join(os.TempDir(), "nesim-"+strconv.Itoa(os.Getuid()))
}

// longestSocket is the longest socket name made below the folder, and sunPathMax what a socket address holds with
// its closing zero (sun_path in linux/un.h).
const (
	longestSocket = "/vm/4294967294/vsock.sock"
	sunPathMax    = 107
)

// makePrivate makes dir if it is not there and refuses one that others could have made or can enter.
func makePrivate(dir string) error {
	if len(dir)+len(longestSocket) > sunPathMax {
		return errLongDir(dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the daemon's folder: %w: set NESIM_DIR to one that you can write", err)
	}
	return checkPrivate(dir)
}

func errLongDir(dir string) error {
	return fmt.Errorf("the folder %s has too long a name for UNIX sockets: set NESIM_DIR to a shorter one", dir)
}

// checkPrivate refuses a folder that others could have made or can enter.
func checkPrivate(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("look at the daemon's folder: %w", err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || int(stat.Uid) != os.Getuid() {
		return fmt.Errorf("%s is not a folder that you own: remove it, or set NESIM_DIR to another", dir)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("the folder %s is open to other users (mode %04o): run chmod 700 %s, or set NESIM_DIR to another", dir, mode, shellWord(dir))
	}
	return nil
}

// shellWord quotes text for a shell, if it needs that.
func shellWord(text string) string {
	if strings.IndexFunc(text, func(r rune) bool {
		return !strings.ContainsRune("/._-+=:@%,", r) && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	}) < 0 {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// errHeld means that another daemon holds the folder's lock.
var errHeld = errors.New("a daemon is running already: nesim shutdown ends it")

// lock takes the folder's lock for as long as the returned file is open.
func lock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the daemon's lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errHeld
		}
		return nil, fmt.Errorf("take the daemon's lock: %w", err)
	}
	return f, nil
}

// glance is longer than a client looks whether a daemon has the lock, for which it takes it.
const glance = 200 * time.Millisecond

// hold takes the folder's lock for a daemon. Clients that glance at it do not stand in the way.
func hold(ctx context.Context, dir string) (*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, glance)
	defer cancel()
	for {
		f, err := lock(dir)
		if !errors.Is(err, errHeld) {
			return f, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// removeStale removes what an earlier daemon, killed, left in the folder. Only the holder of the lock calls it.
func removeStale(dir string) error {
	for _, name := range []string{socketName, pciSocketName, "vm"} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove what an earlier daemon left: %w", err)
		}
	}
	return nil
}

// CheckDir tells what is wrong with a folder for a daemon, and makes nothing: one that is not there may be missing, but
// must be possible to make.
func CheckDir(dir string) error {
	if len(dir)+len(longestSocket) > sunPathMax {
		return errLongDir(dir)
	}
	if _, err := os.Lstat(dir); err == nil {
		return checkPrivate(dir)
	}
	above := filepath.Dir(dir)
	for above != filepath.Dir(above) {
		if _, err := os.Stat(above); err == nil {
			break
		}
		above = filepath.Dir(above)
	}
	if err := unix.Access(above, unix.W_OK|unix.X_OK); err != nil {
		return fmt.Errorf("the daemon's folder %s cannot be made: %s: %w: set NESIM_DIR to one that you can write", dir, above, err)
	}
	return nil
}
