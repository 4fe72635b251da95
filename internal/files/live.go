package files

import (
	"io"
	"io/fs"
	"os"
	"sync"
)

// Live is a file that grows, such as a recording: it appears with its first record. Each Write is one record, and goes to
// the kernel by one write(2), so that at every moment the file is a whole number of records: it stays so when the process
// is killed. When a record does not fit, the file is cut back to the end of the one before, and nothing more is written.
// A machine that stops may lose the last records, and leave a piece of one; Sync and Close flush what there is.
//
// It is safe for concurrent use.
type Live struct {
	path string
	perm fs.FileMode
	to   target

	mu   sync.Mutex
	file *os.File // nil until the first record, but for a stream
	size int64    // of whole records
	err  error    // of the first write that failed
}

// NewLive prepares a file that grows, which replaces what is at path with the first record, or when Close is called
// before any. It makes sure that the file can be made. What is no regular file is written to as it is.
func NewLive(path string, perm fs.FileMode) (*Live, error) {
	to, err := resolve(path)
	if err != nil {
		return nil, &fs.PathError{Op: "write", Path: path, Err: cause(err)}
	}
	l := &Live{path: path, perm: perm, to: to}
	if !to.stream {
		// A try, which leaves nothing behind.
		err = writePart(path, to, perm, func(*os.File) error { return nil }, func(part, _ string) error { return os.Remove(part) })
		return l, err
	}
	if l.file, err = to.open(); err != nil {
		return nil, &fs.PathError{Op: "write", Path: path, Err: cause(err)}
	}
	return l, nil
}

// begin puts the empty file in place.
func (l *Live) begin() error {
	if l.file != nil {
		return nil
	}
	err := writePart(l.path, l.to, l.perm, func(*os.File) error { return nil }, os.Rename)
	if err == nil {
		l.file, err = os.OpenFile(l.to.path, os.O_WRONLY|os.O_APPEND, 0)
	}
	return err
}

// Write writes one record.
func (l *Live) Write(record []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = l.begin()
	}
	if l.err != nil {
		return 0, l.err
	}
	n, err := l.file.Write(record)
	if err != nil {
		l.err = err
		if !l.to.stream && n > 0 {
			_ = l.file.Truncate(l.size)
		}
		return n, err
	}
	l.size += int64(n)
	return n, nil
}

// Sync flushes the records so far to the disk.
func (l *Live) Sync() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil || l.to.stream {
		return nil
	}
	return l.file.Sync()
}

// Discard closes the file. Where nothing was written, what was at its path before is still there.
func (l *Live) Discard() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		l.file.Close()
	}
}

// Close flushes and closes the file.
func (l *Live) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.begin(); err != nil {
		return err
	}
	if !l.to.stream {
		if err := l.file.Sync(); err != nil {
			l.file.Close()
			return err
		}
	}
	return l.file.Close()
}

var _ io.WriteCloser = (*Live)(nil)
