package oci

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/moby/sys/user"
	"golang.org/x/sync/errgroup"

	"github.com/nesim/nesim/eif/pack"
)

// Application returns what nitro-cli makes of the image: its files, its environment, and the command that Options.Honor
// describes. The working directory is made where it is missing, as engines do. A user that is to be honored is looked up
// in the image's own /etc/passwd and /etc/group, and HOME is set to that user's where the image does not set it.
func (i *Image) Application(ctx context.Context) (app pack.Application, err error) {
	app, err = i.application(ctx)
	if err != nil {
		return app, fmt.Errorf("image %s: %w", i.Name, err)
	}
	return app, nil
}

func (i *Image) application(ctx context.Context) (app pack.Application, err error) {
	c := i.Config.Config
	if app.Command, err = i.command(); err != nil {
		return app, err
	}
	app.Env = i.lines("ENV", c.Env)
	t, err := i.flatten(ctx)
	if err != nil {
		return app, err
	}
	if i.honors(i.options.Honor.User, "USER", c.User, isRoot(c.User), "the enclave runs as root") {
		if err := t.setUser(&app, c.User); err != nil {
			return app, fmt.Errorf("user %.100q: %w", c.User, err)
		}
	}
	dir, err := t.workDir(c.WorkingDir)
	if err != nil {
		return app, fmt.Errorf("working directory: %w", err)
	}
	if i.honors(i.options.Honor.WorkDir, "WORKDIR", dir, dir == "/", "the enclave starts in /") {
		app.WorkDir = dir
	}
	if err := t.finish(); err != nil {
		return app, err
	}
	app.Files = t.entries()
	return app, ctx.Err()
}

// flatten applies the layers.
func (i *Image) flatten(ctx context.Context) (*tree, error) {
	var (
		t           = newTree()
		done, total atomic.Int64
		lost        bool
	)
	report := func(n int) { i.options.Progress(done.Add(int64(n)), total.Load()) }
	for _, l := range i.layers {
		total.Add(l.size)
	}
	checks, ctx := errgroup.WithContext(ctx)
	checks.SetLimit(2) // each keeps a processor busy
	apply := func(n int, l layer) error {
		data, err := i.unpack(ctx, l, report)
		if err != nil {
			return err
		}
		checks.Go(func() error {
			counted := report
			if data != l.stored { // the bytes were counted when they were unpacked
				counted = func(int) {}
			}
			if err := verify(ctx, l, data, counted); err != nil {
				return fmt.Errorf("layer %d: %w", n+1, err)
			}
			return nil
		})
		items, xattrs, err := t.scan(ctx, io.NewSectionReader(data, 0, data.Size()), i.spool)
		lost = lost || xattrs
		if err != nil {
			return err
		}
		return t.apply(ctx, items)
	}
	var err error
	for n, l := range i.layers {
		if err = apply(n, l); err != nil {
			err = fmt.Errorf("layer %d: %w", n+1, err)
			break
		}
	}
	if bad := checks.Wait(); bad != nil && (err == nil || !errors.Is(bad, context.Canceled)) {
		err = bad // says why, where the archive is not what it should be
	}
	if err != nil {
		return nil, err
	}
	if lost {
		i.options.Note("file capabilities are lost: a ramdisk has no place for them, on AWS neither")
	}
	return t, nil
}

// unpack returns a layer as an uncompressed archive: where it lies, or in the spool.
func (i *Image) unpack(ctx context.Context, l layer, report func(int)) (*io.SectionReader, error) {
	var first []byte
	var from io.Reader
	if l.stored != nil {
		first = make([]byte, min(4, l.stored.Size()))
		if _, err := l.stored.ReadAt(first, 0); err != nil && err != io.EOF {
			return nil, err
		}
		from = io.NewSectionReader(l.stored, 0, l.stored.Size())
	} else {
		fetched, err := l.fetch()
		if err != nil {
			return nil, err
		}
		defer fetched.Close()
		b := bufio.NewReaderSize(fetched, copyBuffer)
		first, _ = b.Peek(4) // an error comes again
		from = b
	}
	unpacked, err := decompressor(first, &countingReader{from, report})
	switch {
	case err != nil:
		return nil, err
	case unpacked != nil:
		defer unpacked.Close()
		return i.spool.add(ctx, unpacked, func(int) {})
	case l.stored != nil:
		return l.stored, nil
	}
	return i.spool.add(ctx, from, report)
}

// countingReader reports what is read.
type countingReader struct {
	io.Reader
	report func(n int)
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.report(n)
	return n, err
}

// maxAccounts bounds /etc/passwd and /etc/group, in bytes.
const maxAccounts = 4 << 20

// setUser looks up the user, in one of the forms of Docker's USER: NAME or UID, and maybe a colon and NAME or GID.
func (t *tree) setUser(app *pack.Application, spec string) error {
	if spec == "" {
		return nil
	}
	passwd, err := t.read("etc/passwd")
	if err != nil {
		return err
	}
	group, err := t.read("etc/group")
	if err != nil {
		return err
	}
	found, err := user.GetExecUser(spec, &user.ExecUser{Home: "/"}, bytes.NewReader(passwd), bytes.NewReader(group))
	if err != nil {
		return err
	}
	u := &pack.User{}
	for n, id := range append([]int{found.Uid, found.Gid}, found.Sgids...) {
		switch {
		case id < 0 || id > math.MaxInt32:
			return fmt.Errorf("the number %d is out of range", id)
		case n == 0:
			u.UID = uint32(id)
		case n == 1:
			u.GID = uint32(id)
		default:
			u.Groups = append(u.Groups, uint32(id))
		}
	}
	if u.UID == 0 && u.GID == 0 && len(u.Groups) == 0 {
		return nil
	}
	app.User = u
	if !slices.ContainsFunc(app.Env, func(v string) bool { return strings.HasPrefix(v, "HOME=") }) {
		app.Env = append(app.Env, "HOME="+found.Home)
	}
	return nil
}

// read returns the content of a small file; of one that is missing, none.
func (t *tree) read(name string) ([]byte, error) {
	n, err := t.find(name)
	if err != nil || n == nil || !n.file.mode.IsRegular() {
		return nil, err
	}
	if size := n.file.data.Size(); size > maxAccounts {
		return nil, fmt.Errorf("/%s has %d bytes, %d is the limit", name, size, maxAccounts)
	}
	return io.ReadAll(io.NewSectionReader(n.file.data, 0, n.file.data.Size()))
}
