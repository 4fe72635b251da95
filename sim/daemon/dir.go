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

	"github.com/nesim/nesim/internal/private"
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

// open opens the daemon's folder. What it returns for a missing one wraps fs.ErrNotExist.
func open(dir string) (*private.Dir, error) {
	if len(dir)+len(longestSocket) > sunPathMax {
		return nil, errLongDir(dir)
	}
	d, err := private.Open(dir)
	return d, unfit(err)
}

// makePrivate is open for a folder that it makes where it is missing.
func makePrivate(dir string) (*private.Dir, error) {
	if len(dir)+len(longestSocket) > sunPathMax {
		return nil, errLongDir(dir)
	}
	d, err := private.Make(dir)
	if unsafe := (*private.Error)(nil); err != nil && !errors.As(err, &unsafe) {
		return nil, fmt.Errorf("make the daemon's folder: %w: set NESIM_DIR to one that you can write", err)
	}
	return d, unfit(err)
}

// unfit says what to do about a folder, or something in it, that others could have made or can reach.
func unfit(err error) error {
	unsafe := (*private.Error)(nil)
	switch {
	case !errors.As(err, &unsafe):
		return err
	case unsafe.Open:
		return fmt.Errorf("%w: run chmod 700 %s, or set NESIM_DIR to another folder", err, shellWord(unsafe.Path))
	}
	return fmt.Errorf("%w: remove it, or set NESIM_DIR to another folder", err)
}

func errLongDir(dir string) error {
	return fmt.Errorf("the folder %s has too long a name for UNIX sockets: set NESIM_DIR to a shorter one", dir)
}

const lockName = "lock"

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

// lock takes the folder's lock for as long as the returned file is open. The lock's file must exist, or flags have
// os.O_CREATE.
func lock(dir *private.Dir, flags int) (*os.File, error) {
	f, err := dir.OpenFile(lockName, os.O_RDWR|flags, 0o600)
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

// held reports whether a daemon holds the folder's lock. It makes nothing.
func held(dir *private.Dir) (bool, error) {
	f, err := lock(dir, 0)
	switch {
	case err == nil:
		f.Close()
		return false, nil
	case errors.Is(err, errHeld):
		return true, nil
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	}
	return false, err
}

// glance is longer than a client looks whether a daemon has the lock, for which it takes it.
const glance = 200 * time.Millisecond

// hold takes the folder's lock for a daemon. Clients that glance at it do not stand in the way.
func hold(ctx context.Context, dir *private.Dir) (*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, glance)
	defer cancel()
	for {
		f, err := lock(dir, os.O_CREATE)
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

// CheckDir reports what is wrong with a folder for a daemon, and makes nothing: one that is not there may be missing, but
// must be possible to make.
func CheckDir(dir string) error {
	if len(dir)+len(longestSocket) > sunPathMax {
		return errLongDir(dir)
	}
	d, err := private.Open(dir)
	if err == nil {
		return d.Close()
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return unfit(err)
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
