package record

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/internal/private"
)

// Proxy stands between drivers and the vfio-user socket of an NE PCI device, and records what passes: every connection
// to l is carried, descriptors too, to the device's socket. It owns l, and returns when ctx is done and nobody is
// connected any more, or when the recording cannot be written.
//
// Interrupts do not pass here: a driver and its device share eventfds. The recording has what the driver reads then.
func Proxy(ctx context.Context, l *net.UnixListener, device string, to io.Writer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r := &recorder{began: time.Now(), out: json.NewEncoder(to), failed: cancel}
	var all sync.WaitGroup
	defer all.Wait()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for session := 1; ; session++ {
		driver, err := l.AcceptUnix()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				driver.Close()
			}
			if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
				return cause
			}
			return nil
		case err != nil:
			return fmt.Errorf("accept a driver: %w", err)
		}
		all.Go(func() { r.carry(ctx, session, driver, device) })
	}
}

// recorder writes entries of all sessions.
type recorder struct {
	began  time.Time
	failed func(error)

	mu  sync.Mutex // a leaf
	out *json.Encoder
}

func (r *recorder) write(e Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.out.Encode(e); err != nil {
		r.failed(fmt.Errorf("write the recording: %w", err))
	}
}

// carry carries one driver's connection.
func (r *recorder) carry(ctx context.Context, session int, driver *net.UnixConn, device string) {
	defer driver.Close()
	far, err := private.Dial(ctx, device)
	if err != nil {
		r.failed(fmt.Errorf("connect to the device: %w", err))
		return
	}
	defer far.Close()
	defer context.AfterFunc(ctx, func() { driver.Close(); far.Close() })()
	t := &tap{recorder: r, session: session, reads: make(map[uint16]access)}
	t.tell(Attached)
	var both sync.WaitGroup
	both.Go(func() {
		pump(far, driver, &messages{each: t.asked})
		_ = far.CloseWrite()
	})
	pump(driver, far, &messages{each: t.answered})
	driver.Close() // the device has gone: let the driver know
	both.Wait()
	t.tell(Detached)
}

// pump carries bytes and descriptors one way until either end is closed.
func pump(to, from *net.UnixConn, seen *messages) {
	buf, oob := make([]byte, 64<<10), make([]byte, 1<<10)
	for {
		n, nOOB, flags, _, err := from.ReadMsgUnix(buf, oob)
		rights := descriptors(oob[:nOOB])
		if err != nil || n == 0 || flags&unix.MSG_CTRUNC != 0 {
			closeAll(rights)
			return
		}
		seen.feed(buf[:n])
		err = send(to, buf[:n], rights)
		closeAll(rights)
		if err != nil {
			return
		}
	}
}

func send(to *net.UnixConn, p []byte, rights []int) error {
	var oob []byte
	if len(rights) > 0 {
		oob = unix.UnixRights(rights...)
	}
	n, _, err := to.WriteMsgUnix(p, oob, nil)
	if err == nil && n < len(p) { // the descriptors went with the first byte
		_, err = to.Write(p[n:])
	}
	return err
}

func descriptors(oob []byte) (fds []int) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range messages {
		if rights, err := unix.ParseUnixRights(&messages[i]); err == nil {
			fds = append(fds, rights...)
		}
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	return fds
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
