package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/digitalocean/go-qemu/qmp"
)

const (
	// dialTime bounds a connect to a socket that already listens.
	dialTime = 10 * time.Second
	// flushTime is how long a dead QEMU's last events may take to be read.
	flushTime = 5 * time.Second
	// earlyEvents is room for the events that come before supervise reads, while the guest is let go.
	earlyEvents = 64
)

// A monitor is the QMP connection to one QEMU. go-qemu's reader blocks on unbuffered channels of
// events and replies; so events are always read by supervise until they are closed, a command waits
// for its reply for as long as the connection lives, and disconnect comes after the process's end.
type monitor struct {
	qmp    *qmp.SocketMonitor
	events <-chan qmp.Event
	busy   chan struct{} // holds a token while a command is under way
}

// listenQMP makes a listening socket for QEMU to inherit and connects to it before QEMU is born, so
// that there is nothing to wait for, and no name is left behind: it lives in a folder private to the
// user, gone on return.
func listenQMP() (_ *os.File, _ *monitor, err error) {
	dir, err := os.MkdirTemp("", "nesim-qmp-")
	if err != nil {
		return nil, nil, fmt.Errorf("cannot make a folder for QEMU's control socket: %w", err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "qmp")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, nil, fmt.Errorf("cannot make QEMU's control socket: %w", err)
	}
	defer l.Close()
	file, err := l.File()
	if err != nil {
		return nil, nil, fmt.Errorf("cannot hand over QEMU's control socket: %w", err)
	}
	mon, err := qmp.NewSocketMonitor("unix", path, dialTime)
	if err != nil {
		file.Close()
		return nil, nil, fmt.Errorf("cannot reach QEMU's control socket: %w", err)
	}
	return file, &monitor{qmp: mon, busy: make(chan struct{}, 1)}, nil
}

// connect greets QEMU. It returns at the latest when QEMU has ended.
func (m *monitor) connect() error {
	if err := m.qmp.Connect(); err != nil {
		return fmt.Errorf("cannot talk QMP with QEMU: %w", err)
	}
	raw, _ := m.qmp.Events(context.Background()) // never fails
	events := make(chan qmp.Event, earlyEvents)
	m.events = events
	go func() { // ends with the connection; disconnect drains it
		defer close(events)
		for e := range raw {
			events <- e
		}
	}()
	return nil
}

// human has a line of QEMU's monitor for people carried out, whose output is dropped.
func (m *monitor) human(ctx context.Context, line string) error {
	const command = "human-monitor-command"
	request := fmt.Appendf(nil, "{\"execute\": %q, \"arguments\": {\"command-line\": %q}}\n", command, line)
	return m.send(ctx, command, request, nil)
}

// run sends one command without arguments and decodes its "return" member into reply, if not nil.
func (m *monitor) run(ctx context.Context, command string, reply any) error {
	return m.send(ctx, command, fmt.Appendf(nil, "{\"execute\": %q}\n", command), reply)
}

// send sends a command's request. When ctx ends first the command is left to end with the connection, and keeps others
// waiting.
func (m *monitor) send(ctx context.Context, command string, request []byte, reply any) error {
	select {
	case m.busy <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("QEMU does not answer: %w", ctx.Err())
	}
	type answer struct {
		raw []byte
		err error
	}
	done := make(chan answer, 1)
	go func() {
		defer func() { <-m.busy }()
		raw, err := m.qmp.Run(request)
		done <- answer{raw, err}
	}()
	select {
	case a := <-done:
		if a.err != nil {
			return fmt.Errorf("QEMU refused %s: %w", command, a.err)
		}
		if reply == nil {
			return nil
		}
		return json.Unmarshal(a.raw, &struct {
			Return any `json:"return"`
		}{reply})
	case <-ctx.Done():
		return fmt.Errorf("QEMU does not answer %s: %w", command, ctx.Err())
	}
}

// status is query-status's RunState (QEMU, qapi/run-state.json).
func (m *monitor) status(ctx context.Context) (string, error) {
	var reply struct {
		Status string `json:"status"`
	}
	if err := m.run(ctx, "query-status", &reply); err != nil {
		return "", err
	}
	if reply.Status == "" {
		return "", errors.New("QEMU answered query-status without a status")
	}
	return reply.Status, nil
}

// disconnect ends the connection and waits for the command under way; the process has ended.
func (m *monitor) disconnect() {
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		if m.events != nil {
			for range m.events {
			}
		}
	}()
	_ = m.qmp.Disconnect()
	m.busy <- struct{}{}
	<-drained
}
