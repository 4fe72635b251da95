package pack

import (
	"io"
	"io/fs"
)

// Entry is one file of a file tree to pack. Only its metadata is held in memory; a regular file's content is read when
// it is written.
type Entry struct {
	Name     string      // path below the tree's root: elements separated by "/", none of them empty, "." or ".."
	Mode     fs.FileMode // type and permissions
	UID, GID uint32

	// Size is the length in bytes of a regular file, and Open opens it. The content must have just that length.
	Size int64
	Open func() (io.ReadCloser, error)

	Target       string // of a symbolic link: its text, stored as it is
	LinkTo       string // of a hard link: the Name of the regular file it is another name of; only Name is used then
	Major, Minor uint32 // of a device
}

// FileMode types that a ramdisk cannot hold or that mean nothing in a new machine.
const unpackable = fs.ModeSocket | fs.ModeIrregular

// kind names the type of a file for people.
func kind(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "directory"
	case mode&fs.ModeSymlink != 0:
		return "symbolic link"
	case mode&fs.ModeSocket != 0:
		return "socket"
	case mode&fs.ModeNamedPipe != 0:
		return "named pipe"
	case mode&fs.ModeDevice != 0:
		return "device"
	case mode.IsRegular():
		return "regular file"
	}
	return "file of unknown type"
}
