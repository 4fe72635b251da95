// Package private opens folders, files and UNIX sockets that nobody but the user can have made or can reach: a folder that
// another user made first, a link that he laid, or a socket that he listens on is refused before anything is sent.
//
// A folder is opened component by component without following a link of another user's; what is in it is then reached
// through its descriptor, so that nothing can be exchanged between the check and the use. It keeps no state and starts no
// goroutines.
package private

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks bounds the symbolic links in a path (MAXSYMLINKS in linux/namei.h).
const maxLinks = 40

// Error is a folder, file or socket that is not the user's alone.
type Error struct {
	Path string
	Why  string
	Open bool // it is the user's, and its mode lets others in
}

func (e *Error) Error() string { return fmt.Sprintf("%s is not private to you: %s", e.Path, e.Why) }

// Dir is an open folder that belongs to the user and that nobody else can enter.
type Dir struct {
	path string
	fd   *os.File
}

// Open opens a folder. The error wraps fs.ErrNotExist if it is missing, is an *Error if it is not private, and else is
// the system's.
func Open(path string) (*Dir, error) {
	f, err := walk(path, false)
	if err != nil {
		return nil, err
	}
	return checked(path, f)
}

// Make is Open for a folder that it makes, with those above it, where they are missing.
func Make(path string) (*Dir, error) {
	f, err := walk(path, true)
	if err != nil {
		return nil, err
	}
	return checked(path, f)
}

func checked(path string, f *os.File) (*Dir, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		f.Close()
		return nil, pathError("look at", path, err)
	}
	if err := flaw(path, &st, unix.S_IFDIR); err != nil {
		f.Close()
		return nil, err
	}
	return &Dir{path, f}, nil
}

// flaw says why a file at path, of a kind (S_IFDIR ...), is not the user's alone, or is nil.
func flaw(path string, st *unix.Stat_t, kind uint32) error {
	names := map[uint32]string{unix.S_IFDIR: "folder", unix.S_IFSOCK: "socket", unix.S_IFREG: "file"}
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFLNK:
		return &Error{Path: path, Why: "it is a symbolic link"}
	case st.Mode&unix.S_IFMT != kind:
		return &Error{Path: path, Why: "it is not a " + names[kind]}
	case int(st.Uid) != os.Geteuid():
		return &Error{Path: path, Why: fmt.Sprintf("it belongs to user %d", st.Uid)}
	case kind == unix.S_IFSOCK && st.Mode&0o022 == 0: // to connect takes the right to write (unix(7))
		return nil
	case st.Mode&0o077 != 0:
		return &Error{Path: path, Why: fmt.Sprintf("it is open to other users (mode %04o)", st.Mode&0o7777), Open: true}
	}
	return nil
}

// Close closes the folder.
func (d *Dir) Close() error { return d.fd.Close() }

// Path is the folder's path as it was opened.
func (d *Dir) Path() string { return d.path }

// OpenFile opens a regular file of the folder, not following a link. flags and mode are as of os.OpenFile.
func (d *Dir) OpenFile(name string, flags int, mode uint32) (*os.File, error) {
	path := filepath.Join(d.path, name)
	fd, err := unix.Openat(int(d.fd.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, mode)
	if err == unix.ELOOP {
		return nil, &Error{Path: path, Why: "it is a symbolic link"}
	}
	if err != nil {
		return nil, pathError("open", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		f.Close()
		return nil, pathError("look at", path, err)
	}
	if err := flaw(path, &st, unix.S_IFREG); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// walk opens the folder at path from the root down. A link on the way must be the user's or root's. With create it makes
// what is missing.
func walk(path string, create bool) (*os.File, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	at, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, pathError("open", "/", err)
	}
	rest, links := split(abs), 0
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		last := len(rest) == 0 // a link is replaced by what it stands for, so this is still the path's own last name
		next, target, err := step(at, name, create)
		switch {
		case err != nil:
		case target == "":
		case last:
			err = &Error{Path: path, Why: "it is a symbolic link"}
		case links == maxLinks:
			err = unix.ELOOP
		}
		if err != nil {
			unix.Close(at)
			return nil, explained(path, err)
		}
		if target == "" {
			unix.Close(at)
			at = next
			continue
		}
		links++
		if strings.HasPrefix(target, "/") {
			unix.Close(at)
			if at, err = unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
				return nil, pathError("open", "/", err)
			}
		}
		rest = append(split(target), rest...)
	}
	return os.NewFile(uintptr(at), path), nil
}

// split returns the names in a path.
func split(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

// step opens a name in a folder, or reads it where it is a link.
func step(at int, name string, create bool) (next int, target string, err error) {
	var failed error // to make it, which matters only where it is missing
	if create {
		failed = unix.Mkdirat(at, name, 0o700)
	}
	fd, err := unix.Openat(at, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT && failed != nil {
		err = failed
	}
	if err != nil {
		return -1, "", err
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return fd, "", nil
	}
	defer unix.Close(fd)
	if err != nil {
		return -1, "", err
	}
	if st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return -1, "", &Error{Path: name, Why: fmt.Sprintf("it is a symbolic link of user %d's", st.Uid)}
	}
	text := [unix.PathMax]byte{}
	n, err := unix.Readlinkat(fd, "", text[:])
	if err != nil {
		return -1, "", err
	}
	if n == 0 {
		return -1, "", unix.ENOENT
	}
	return -1, string(text[:n]), nil
}

// explained gives an error of a step the whole path.
func explained(path string, err error) error {
	if unsafe := (*Error)(nil); errors.As(err, &unsafe) {
		return &Error{Path: path, Why: unsafe.Path + ": " + unsafe.Why}
	}
	return pathError("open", path, err)
}

func pathError(op, path string, err error) error { return &fs.PathError{Op: op, Path: path, Err: err} }
