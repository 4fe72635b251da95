package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/internal/private"
	"github.com/nesim/nesim/sim/daemon"
)

// open listens as --listen has it. It also reports where.
func (f *kmsFlags) open() (l net.Listener, endpoint string, err error) {
	if path, ok := strings.CutPrefix(f.listen, "unix:"); ok {
		l, err = listenPrivate(path)
		endpoint = f.listen
	} else if port, ok := strings.CutPrefix(f.listen, "vsock:"); ok {
		n, parseErr := strconv.ParseUint(port, 10, 32)
		if parseErr != nil {
			return nil, "", fmt.Errorf("--listen %s: the port must be a number from 0 to 4294967295", f.listen)
		}
		if l, err = vsock.Listen(uint32(n), nil); err == nil {
			endpoint = fmt.Sprintf("vsock:%d:%d", l.Addr().(*vsock.Addr).ContextID, l.Addr().(*vsock.Addr).Port)
		}
	} else if l, err = net.Listen("tcp", f.listen); err == nil {
		endpoint = f.scheme() + "://" + l.Addr().String()
	}
	if err != nil {
		return nil, "", fmt.Errorf("--listen %s: %w", f.listen, err)
	}
	return f.secure(l), endpoint, nil
}

func (f *kmsFlags) scheme() string {
	if f.tlsSetting != nil {
		return "https"
	}
	return "http"
}

// secure makes a listener's connections TLS, if that is asked for.
func (f *kmsFlags) secure(l net.Listener) net.Listener {
	if f.tlsSetting != nil {
		return tls.NewListener(l, f.tlsSetting)
	}
	return l
}

// maxSocketPath is the longest path of a UNIX socket in bytes: sun_path of unix(7), and its final zero.
const maxSocketPath = 107

// listenPrivate listens on a UNIX socket that nobody but the user can connect to. It takes the place of a socket that a
// killed server of the user's has left.
func listenPrivate(path string) (net.Listener, error) {
	switch {
	case path == "" || strings.HasPrefix(path, "@"): // without a path a socket has no mode either
		return nil, errors.New("want the path of a socket")
	case len(path) > maxSocketPath:
		return nil, fmt.Errorf("the path has %d bytes, but a socket path has at most %d", len(path), maxSocketPath)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	// Two servers must not take each other's. The folder may be anybody's, who could lock it for ever.
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, fmt.Errorf("lock %s, which another program has locked: %w", dir.Name(), err)
	}
	l, err := private.Listen(path)
	if errors.Is(err, unix.EADDRINUSE) {
		if err = removeStale(path); err == nil {
			l, err = private.Listen(path)
		}
	}
	if err != nil {
		return nil, err
	}
	return l, nil
}

// removeStale removes a socket of the user's at which nobody listens.
func removeStale(path string) error {
	conn, err := private.Dial(context.Background(), path)
	switch {
	case err == nil:
		conn.Close()
		return errors.New("another server listens there: end it, or give another path")
	case errors.Is(err, unix.ECONNREFUSED):
		return os.Remove(path)
	}
	return err
}

// parentListener listens on a port of the simulated parent. The daemon gives one connection
// for each time that it is asked.
type parentListener struct {
	ctx    context.Context
	cancel context.CancelFunc
	client *daemon.Client
	port   uint32
}

func listenOnParent(ctx context.Context, c *daemon.Client, port uint32) net.Listener {
	ctx, cancel := context.WithCancel(ctx)
	return &parentListener{ctx, cancel, c, port}
}

func (l *parentListener) Accept() (net.Conn, error) {
	stream, err := l.client.AcceptKept(l.ctx, l.port)
	switch {
	case l.ctx.Err() != nil:
		if err == nil {
			stream.Close()
		}
		return nil, net.ErrClosed
	case err != nil:
		return nil, fmt.Errorf("--vsock-port %d: %w", l.port, err)
	}
	return stream, nil
}

func (l *parentListener) Close() error { l.cancel(); return nil }

func (l *parentListener) Addr() net.Addr { return &vsock.Addr{ContextID: vsockParent, Port: l.port} }
