package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
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
		return fmt.Errorf("the folder %s has too long a name for UNIX sockets: set NESIM_DIR to a shorter one", dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the daemon's folder: %w: set NESIM_DIR to one that you can write", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("look at the daemon's folder: %w", err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || int(stat.Uid) != os.Getuid() || info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s is not a folder private to you (mode 0700): remove it, or set NESIM_DIR to another", dir)
	}
	return nil
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

// removeStale removes what an earlier daemon, killed, left in the folder. Only the holder of the lock calls it.
func removeStale(dir string) error {
	for _, name := range []string{socketName, pciSocketName, "vm"} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove what an earlier daemon left: %w", err)
		}
	}
	return nil
}
