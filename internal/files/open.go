package files

import (
	"context"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Open opens a file for reading; a pipe that nobody has open for writing, and reads of one, wait until ctx is done at
// most. The file closes itself when ctx is done, so that ctx has to be the caller's for as long as it reads.
func Open(ctx context.Context, path string) (*os.File, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	other := make(chan *os.File, 1) // a writer, by which open(2) ends its wait
	stop := context.AfterFunc(ctx, func() {
		f, _ := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
		other <- f
	})
	f, err := os.Open(path)
	if !stop() {
		if w := <-other; w != nil {
			w.Close()
		}
		if err == nil {
			f.Close()
		}
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
		f.Close()
		return nil, err
	case info.IsDir():
		f.Close()
		return nil, &fs.PathError{Op: "read", Path: path, Err: unix.EISDIR}
	case !info.Mode().IsRegular():
		context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(0, 1)) })
	}
	return f, nil
}
