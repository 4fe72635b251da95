package pack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxConfigSize bounds the files cmd and env.
const maxConfigSize = 1 << 20

// FromFolder returns the application in a folder: its files are the enclave's root directory, but for two at its top,
// as AWS's init reads them: cmd, the workload's arguments, one a line, and env, which may be missing, its environment,
// one KEY=VALUE a line.
//
// Permissions are kept; every file belongs to root, whoever owns the folder. Symbolic links are stored, never followed;
// hard links within the folder stay hard links. Sockets are refused. Nothing outside of dir is read, even when somebody
// changes it meanwhile.
func FromFolder(ctx context.Context, dir string) (Application, error) {
	app, err := fromFolder(ctx, dir)
	if err != nil {
		return Application{}, fmt.Errorf("pack folder %s: %w", dir, err)
	}
	return app, nil
}

func fromFolder(ctx context.Context, dir string) (app Application, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return app, plain(err)
	}
	// Not closed here: the entries read from it later, and it closes itself when they are gone.
	entries, err := scan(ctx, root)
	if err != nil {
		return app, err
	}
	for _, e := range entries {
		switch e.Name {
		case "cmd":
			app.Command, err = readLines(e)
		case "env":
			app.Env, err = readLines(e)
		default:
			app.Files = append(app.Files, e)
		}
		if err != nil {
			return app, err
		}
	}
	if app.Command == nil {
		return app, errors.New("no file cmd: write the workload's arguments in it, one a line")
	}
	return app, checkLines(app)
}

// checkLines refuses what a text editor's user cannot have meant.
func checkLines(app Application) error {
	for name, lines := range map[string][]string{"cmd": app.Command, "env": app.Env} {
		for i, l := range lines {
			if strings.HasSuffix(l, "\r") {
				return fmt.Errorf("%s: line %d ends in a carriage return: write it with UNIX line ends", name, i+1)
			}
		}
	}
	for i, v := range app.Env {
		if key, _, ok := strings.Cut(v, "="); !ok || key == "" {
			return fmt.Errorf("env: line %d is not KEY=VALUE: %q", i+1, v)
		}
	}
	return nil
}

// scan lists the files below root.
func scan(ctx context.Context, root *os.Root) (entries []Entry, err error) {
	type inode struct{ dev, ino uint64 }
	first := map[inode]string{} // of files with several links, the name met first
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return plain(err)
		}
		if name == "." {
			return ctx.Err()
		}
		info, err := d.Info()
		if err != nil {
			return plain(err)
		}
		e := Entry{Name: name, Mode: info.Mode()}
		st := info.Sys().(*syscall.Stat_t)
		switch {
		case e.Mode.IsRegular():
			id := inode{uint64(st.Dev), st.Ino}
			if st.Nlink > 1 && first[id] != "" {
				e.LinkTo = first[id]
				break
			}
			first[id] = name
			e.Size = info.Size()
			e.Open = func() (io.ReadCloser, error) { return openSame(root, name, info) }
		case e.Mode&fs.ModeSymlink != 0:
			if e.Target, err = root.Readlink(name); err != nil {
				return plain(err)
			}
		case e.Mode&fs.ModeDevice != 0:
			e.Major, e.Minor = unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev))
		case e.Mode&unpackable != 0:
			return fmt.Errorf("%s is a %s, which an enclave's root directory cannot hold: remove it", name, kind(e.Mode))
		}
		entries = append(entries, e)
		return ctx.Err()
	})
	return entries, err
}

// openSame opens the regular file that was seen before, and not another of the same name: no device, and no pipe that
// would block.
func openSame(root *os.Root, name string, seen fs.FileInfo) (io.ReadCloser, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, plain(err)
	}
	now, err := f.Stat()
	if err == nil && !os.SameFile(seen, now) {
		err = fmt.Errorf("%s changed while being packed", name)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// readLines reads a configuration file's lines.
func readLines(e Entry) ([]string, error) {
	if !e.Mode.IsRegular() {
		return nil, fmt.Errorf("%s is a %s: it should be a regular file", e.Name, kind(e.Mode))
	}
	if e.Open == nil {
		return nil, fmt.Errorf("%s is a hard link to %s: make it a file of its own", e.Name, e.LinkTo)
	}
	if e.Size > maxConfigSize {
		return nil, fmt.Errorf("%s is %d bytes long: at most %d are read", e.Name, e.Size, maxConfigSize)
	}
	r, err := e.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	text, err := io.ReadAll(io.LimitReader(r, maxConfigSize))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", e.Name, err)
	}
	return splitLines(string(text)), nil
}

// plain drops the name of the system call from a file error, "statat etc: permission denied", for people.
func plain(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("%s: %w", pe.Path, pe.Err)
	}
	return err
}
