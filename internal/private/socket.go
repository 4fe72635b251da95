package private

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Dial connects to a stream socket of the folder. Nothing is sent before it is known that the socket is the user's and
// that a process of his listens on it.
//
// The error is an *Error where that is not so; else it wraps the system's: ENOENT or ECONNREFUSED where nobody listens,
// EAGAIN where the listener's backlog is full, EACCES, or ctx's.
func (d *Dir) Dial(ctx context.Context, name string) (*net.UnixConn, error) {
	path := filepath.Join(d.path, name)
	var st unix.Stat_t
	if err := unix.Fstatat(int(d.fd.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, pathError("connect to", path, err)
	}
	if err := flaw(path, &st, unix.S_IFSOCK); err != nil {
		return nil, err
	}
	// By way of the descriptor the folder cannot be exchanged, and its name may be longer than a socket address.
	return connect(ctx, fmt.Sprintf("/proc/self/fd/%d/%s", d.fd.Fd(), name), path)
}

// Dial connects to a stream socket at a path, whose folder need not be private, but which is the user's, with a process
// of his listening on it. Its errors are as of Dir.Dial.
func Dial(ctx context.Context, path string) (*net.UnixConn, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return nil, pathError("connect to", path, err)
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFSOCK:
		return nil, &Error{Path: path, Why: "it is not a socket"}
	case int(st.Uid) != os.Geteuid():
		return nil, &Error{Path: path, Why: fmt.Sprintf("it belongs to user %d", st.Uid)}
	}
	return connect(ctx, path, path)
}

// connect connects to a socket that has been checked, by an address, and checks who listens. Errors name path.
func connect(ctx context.Context, address, path string) (*net.UnixConn, error) {
	conn, err := dial(ctx, address)
	if err != nil {
		return nil, pathError("connect to", path, err)
	}
	if err := CheckPeer(conn); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func dial(ctx context.Context, path string) (*net.UnixConn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err == nil {
		return conn.(*net.UnixConn), nil
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if errno := syscall.Errno(0); asErrno(err, &errno) {
		return nil, errno
	}
	return nil, err
}

// Peer returns the process and the user at the other end of a connection: for a client, those that began to listen.
func Peer(conn *net.UnixConn) (pid, uid int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	var peer *unix.Ucred
	failed := raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if failed != nil {
		return 0, 0, failed
	}
	if err != nil {
		return 0, 0, fmt.Errorf("ask who is at the other end of a socket: %w", err)
	}
	return int(peer.Pid), int(peer.Uid), nil
}

// CheckPeer refuses a connection with another user's process. Root's are taken: root can do all that the user can.
func CheckPeer(conn *net.UnixConn) error {
	pid, uid, err := Peer(conn)
	if err != nil {
		return err
	}
	if uid != os.Geteuid() && uid != 0 {
		return &Error{Path: conn.RemoteAddr().String(), Why: fmt.Sprintf("process %d of user %d is at the other end", pid, uid)}
	}
	return nil
}

// Listen listens on a stream socket at path that has mode 0600 from its first moment on. Closing the listener removes it.
func Listen(path string) (*net.UnixListener, error) {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		// bind(2) makes the file with the mode of the socket, less the umask (net/unix/af_unix.c).
		failed := raw.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) })
		if failed != nil {
			return failed
		}
		return err
	}}
	l, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil || flaw(path, &st, unix.S_IFSOCK) != nil {
		l.Close()
		return nil, &fs.PathError{Op: "listen on", Path: path, Err: unix.EPERM}
	}
	return l.(*net.UnixListener), nil
}

func asErrno(err error, errno *syscall.Errno) bool { return errors.As(err, errno) }
