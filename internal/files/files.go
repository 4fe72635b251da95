// Package files writes output files whole or not at all.
//
// A file is written under another name in the folder of its own, flushed to the disk, and renamed; then the folder is
// flushed. Whatever fails or ends on the way, the path has the old file or the new one, and a failure leaves nothing
// else behind. Only a process that is killed leaves a file, whose name ends with PartSuffix.
//
// What is no regular file (a device, a pipe, a socket, a descriptor under /proc such as /dev/stdout) stays what it is:
// it is sent the whole content once that is complete. A symbolic link stays too; the file that it leads to is replaced.
package files

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// PartSuffix ends the names of files that are not complete. They begin with a dot.
const PartSuffix = ".part"

// Write writes content to path: see WriteTo.
func Write(path string, content []byte, perm fs.FileMode) error {
	return WriteTo(path, perm, func(f *os.File) error {
		_, err := f.Write(content)
		return err
	})
}

// WriteTo writes to path what write writes to f, which begins empty, can be read and can be written in any order. A new
// file gets perm less the process's umask. One that exists keeps its mode, unless perm is private to the owner; as with
// open(2), one that may not be written is not replaced. Errors of write are returned as they are.
func WriteTo(path string, perm fs.FileMode, write func(f *os.File) error) error {
	to, err := resolve(path)
	if err != nil {
		return &fs.PathError{Op: "write", Path: path, Err: cause(err)}
	}
	if to.stream {
		return writeStream(path, to, write)
	}
	return writePart(path, to, perm, write, os.Rename)
}

// WriteNew is WriteTo for a path that must not exist: where it does, also if another process has just made it, the error
// is fs.ErrExist.
func WriteNew(path string, perm fs.FileMode, write func(f *os.File) error) error {
	if _, err := os.Lstat(path); err == nil {
		return &fs.PathError{Op: "write", Path: path, Err: fs.ErrExist}
	}
	return writePart(path, target{path: path}, perm, write, renameNew)
}

// writePart has a file written under another name, and gives it its own by rename.
func writePart(path string, to target, perm fs.FileMode, write func(*os.File) error, rename func(from, to string) error) error {
	dir, base := filepath.Split(to.path)
	// NAME_MAX of include/uapi/linux/limits.h is 255.
	part := fmt.Sprintf("%s.%.200s.%s%s", dir, base, rand.Text(), PartSuffix)
	fd, err := unix.Open(part, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, uint32(perm.Perm()))
	if err != nil {
		return &fs.PathError{Op: "write", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path) // so that errors have the name that the user knows
	complete := false
	defer func() {
		f.Close()
		if !complete { // also when write panics
			os.Remove(part)
		}
	}()
	if err := write(f); err != nil {
		return err
	}
	if to.exists && perm&0o077 != 0 {
		if err := f.Chmod(to.mode.Perm()); err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := rename(part, to.path); err != nil {
		return &fs.PathError{Op: "write", Path: path, Err: cause(err)}
	}
	complete = true
	return syncDir(dir)
}

// renameNew renames a file, but not over another.
func renameNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // a file system that cannot; most of those can link
		if err = os.Link(from, to); err == nil {
			err = os.Remove(from)
		}
	}
	return err
}

// syncDir makes a rename in a folder last. Some file systems cannot, nor can who may write to the folder but not read it.
func syncDir(dir string) error {
	if dir == "" {
		dir = "."
	}
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	return nil
}

// writeStream has a nameless file written, and copies it to what is no regular file.
func writeStream(path string, to target, write func(*os.File) error) error {
	out, err := to.open()
	if err != nil {
		return &fs.PathError{Op: "write", Path: path, Err: cause(err)}
	}
	defer out.Close()
	f, err := os.CreateTemp("", "nesim-*"+PartSuffix)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return err
	}
	if err := write(f); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if _, err := io.Copy(out, f); err != nil {
		return &fs.PathError{Op: "write", Path: path, Err: cause(err)}
	}
	return out.Close()
}

// cause is the error without the name of the file that it happened to, which is not the one that the user gave.
func cause(err error) error {
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		return path.Err
	case errors.As(err, &link):
		return link.Err
	}
	return err
}

// target is what a path leads to.
type target struct {
	path   string      // without symbolic links
	exists bool        // as a regular file
	mode   fs.FileMode // of that file
	stream bool        // it is no regular file, or is one by its descriptor
	fd     int         // of this process, or -1
}

// maxLinks is how many symbolic links are followed: MAXSYMLINKS of include/linux/namei.h.
const maxLinks = 40

// resolve follows symbolic links, that of the last element too, up to what is there or can be made.
func resolve(path string) (to target, err error) {
	for range maxLinks {
		dir, base := filepath.Split(path)
		if base == "" {
			return to, unix.EISDIR
		}
		if dir == "" {
			dir = "."
		}
		if dir, err = filepath.EvalSymlinks(dir); err != nil {
			return to, err
		}
		path = filepath.Join(dir, base)
		if fd, ok := descriptor(dir, base); ok {
			return target{path: path, stream: true, fd: fd}, nil
		}
		link, err := os.Readlink(path)
		if err != nil {
			return look(path)
		}
		if err := mayFollow(dir, path); err != nil {
			return to, err
		}
		if path = link; !filepath.IsAbs(link) {
			path = dir + "/" + link
		}
	}
	return to, unix.ELOOP
}

// descriptor reports whether a path is a descriptor of a process, /proc/PID/fd/N: opened, such a link leads to the file
// that the process has open, whatever its text. fd is N for a descriptor of this process, else -1.
func descriptor(dir, base string) (fd int, ok bool) {
	if matched, _ := filepath.Match("/proc/*/fd", dir); !matched {
		return -1, false
	}
	n, err := strconv.Atoi(base)
	if err != nil || dir != fmt.Sprintf("/proc/%d/fd", os.Getpid()) {
		return -1, true
	}
	return n, true
}

// mayFollow refuses what the kernel refuses with fs.protected_symlinks: in a folder that all may write to and that is
// sticky, as /tmp, only the links of the user and of the folder's owner are followed.
func mayFollow(dir, link string) error {
	var d, l unix.Stat_t
	if err := unix.Stat(dir, &d); err != nil {
		return err
	}
	if err := unix.Lstat(link, &l); err != nil {
		return err
	}
	const shared = unix.S_ISVTX | unix.S_IWOTH
	if d.Mode&shared == shared && l.Uid != d.Uid && int(l.Uid) != os.Geteuid() {
		return unix.EACCES
	}
	return nil
}

// look looks at what is at a path that is no link.
func look(path string) (to target, err error) {
	to = target{path: path, fd: -1}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return to, nil
	case err != nil:
		return to, err
	case info.IsDir():
		return to, unix.EISDIR
	case !info.Mode().IsRegular():
		to.stream = true
		return to, nil
	}
	to.exists, to.mode = true, info.Mode()
	return to, unix.Access(path, unix.W_OK)
}

// open opens a stream for writing.
func (t *target) open() (*os.File, error) {
	if t.fd < 0 {
		return os.OpenFile(t.path, os.O_WRONLY, 0)
	}
	fd, err := unix.FcntlInt(uintptr(t.fd), unix.F_DUPFD_CLOEXEC, 0) // with its offset; and a socket cannot be opened
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), t.path), nil
}
