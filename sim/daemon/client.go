package daemon

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/internal/private"
	"github.com/nesim/nesim/sim/errcode"
	"github.com/nesim/nesim/sim/instance"
)

const (
	// answerTimeout bounds the answer to a request that needs no waiting, on a busy machine too. A daemon that takes
	// longer hangs.
	answerTimeout = 20 * time.Second
	// shutdownTimeout bounds a daemon's end, for which it gives its requests endPatience.
	shutdownTimeout = 2 * endPatience
	// backlogPause is the time between two tries to connect to a daemon whose backlog is full.
	backlogPause = 10 * time.Millisecond
	// maxAnswer bounds a JSON answer, in bytes: metadata of images included.
	maxAnswer = 64 << 20
)

// Client speaks to the daemon of a folder, once it is sure that folder, socket and daemon are the user's own. Its errors
// are *NotRunningError where no daemon runs, and only there; *Error where the daemon refused; else the daemon cannot be
// reached, or does not answer in time.
type Client struct {
	dir     string
	web     http.Client
	timeout time.Duration
	pid     atomic.Int64 // of the daemon that a connection was last made to
}

// NewClient returns a client for the daemon of dir, running or not.
func NewClient(dir string) *Client {
	c := &Client{dir: dir, timeout: answerTimeout}
	c.web.Transport = &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return c.connect(ctx)
		},
	}
	return c
}

// connect connects to the daemon. It waits while the daemon's backlog is full.
func (c *Client) connect(ctx context.Context) (*net.UnixConn, error) {
	folder, err := open(c.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &NotRunningError{Dir: c.dir, Err: err}
	}
	if err != nil {
		return nil, c.unreachable(err)
	}
	defer folder.Close()
	for {
		conn, err := folder.Dial(ctx, socketName)
		switch {
		case err == nil:
			if pid, _, err := private.Peer(conn); err == nil {
				c.pid.Store(int64(pid))
			}
			return conn, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
			return nil, &NotRunningError{Dir: c.dir, Err: err}
		case !errors.Is(err, unix.EAGAIN):
			return nil, c.unreachable(unfit(err))
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(backlogPause):
		}
	}
}

func (c *Client) unreachable(err error) error {
	return errcode.New(errcode.Socket, "cannot reach the daemon: %w", err)
}

// promptly calls f, whose request the daemon is to answer without waiting for anything.
func (c *Client) promptly(ctx context.Context, f func(ctx context.Context) error) error {
	timed, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	err := f(timed)
	if err == nil || ctx.Err() != nil || timed.Err() == nil {
		return err
	}
	who := "the daemon"
	if pid := c.pid.Load(); pid != 0 {
		who = fmt.Sprintf("the daemon, process %d,", pid)
	}
	return errcode.New(errcode.SocketConnectTimeout, "%s does not answer within %v: see %s, or kill the process",
		who, c.timeout, filepath.Join(c.dir, logName))
}

// About asks the daemon about itself.
func (c *Client) About(ctx context.Context) (about About, err error) {
	return about, c.promptly(ctx, func(ctx context.Context) error {
		return c.ask(ctx, http.MethodGet, pathAbout, nil, &about)
	})
}

// reach makes sure that a daemon answers, before a request that may wait for long.
func (c *Client) reach(ctx context.Context) error {
	_, err := c.About(ctx)
	return err
}

// Shutdown asks the daemon to end with all its enclaves and waits until it has given up its folder.
func (c *Client) Shutdown(ctx context.Context) error {
	folder, err := open(c.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return &NotRunningError{Dir: c.dir, Err: err}
	}
	if err != nil {
		return c.unreachable(err)
	}
	defer folder.Close()
	err = c.promptly(ctx, func(ctx context.Context) error { return c.ask(ctx, http.MethodPost, pathShutdown, nil, nil) })
	if err != nil {
		return err
	}
	late := time.After(shutdownTimeout)
	for {
		if running, err := held(folder); err != nil || !running {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-late:
			return fmt.Errorf("the daemon, process %d, does not end within %v: kill it", c.pid.Load(), shutdownTimeout)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Run runs an enclave and returns when it has sent its heartbeat. progress is called with each step, a line for
// people. Where ctx ends before, so does the enclave.
func (c *Client) Run(ctx context.Context, spec instance.RunSpec, progress func(string)) (instance.RunInfo, error) {
	if err := c.reach(ctx); err != nil {
		return instance.RunInfo{}, err
	}
	resp, err := c.send(ctx, http.MethodPost, pathEnclaves, spec)
	if err != nil {
		return instance.RunInfo{}, err
	}
	defer resp.Body.Close()
	lines := json.NewDecoder(resp.Body)
	for {
		var m message
		if err := lines.Decode(&m); err != nil {
			if ctx.Err() != nil {
				return instance.RunInfo{}, ctx.Err()
			}
			return instance.RunInfo{}, errcode.New(errcode.EnclaveProcessConnectionFailure, "the daemon ended before the enclave ran: its log is %s", filepath.Join(c.dir, logName))
		}
		switch {
		case m.Error != "":
			return instance.RunInfo{}, m.err()
		case m.Run != nil:
			return *m.Run, nil
		default:
			progress(m.Progress)
		}
	}
}

// Enclaves describes the running enclaves, with their images' metadata where that is asked for.
func (c *Client) Enclaves(ctx context.Context, metadata bool) (list []instance.Description, err error) {
	path := pathEnclaves
	if metadata {
		path += "?metadata"
	}
	return list, c.promptly(ctx, func(ctx context.Context) error {
		return c.ask(ctx, http.MethodGet, path, nil, &list)
	})
}

// Terminate ends an enclave and waits for its end.
func (c *Client) Terminate(ctx context.Context, enclave instance.Ref) (ending instance.Ending, err error) {
	if err := c.reach(ctx); err != nil {
		return ending, err
	}
	return ending, c.ask(ctx, http.MethodDelete, pathEnclave+"?"+refQuery(enclave).Encode(), nil, &ending)
}

// Wait waits for the end of an enclave, which may have ended lately.
func (c *Client) Wait(ctx context.Context, enclave instance.Ref) (ending instance.Ending, err error) {
	if err := c.reach(ctx); err != nil {
		return ending, err
	}
	return ending, c.ask(ctx, http.MethodGet, pathWait+"?"+refQuery(enclave).Encode(), nil, &ending)
}

// Console opens the console of an enclave in debug mode.
func (c *Client) Console(ctx context.Context, enclave instance.Ref) (Stream, error) {
	return c.open(ctx, pathConsole, refQuery(enclave))
}

// DialVsock connects to a port of an enclave, or of the parent (CID 3). With wait it tries until somebody listens there.
func (c *Client) DialVsock(ctx context.Context, cid, port uint32, wait bool) (Stream, error) {
	query := url.Values{"cid": {strconv.FormatUint(uint64(cid), 10)}, "port": {strconv.FormatUint(uint64(port), 10)}}
	if wait {
		query.Set("wait", "")
	}
	return c.open(ctx, pathVsockDial, query)
}

// AcceptVsock listens on a port of the parent (CID 3) and returns the first connection.
func (c *Client) AcceptVsock(ctx context.Context, port uint32) (Stream, error) {
	return c.open(ctx, pathListen, url.Values{"port": {strconv.FormatUint(uint64(port), 10)}})
}

// AcceptKept is AcceptVsock for somebody who calls it again and again: the port stays open for a while in between.
func (c *Client) AcceptKept(ctx context.Context, port uint32) (Stream, error) {
	return c.open(ctx, pathListen, url.Values{"port": {strconv.FormatUint(uint64(port), 10)}, "keep": {""}})
}

// refQuery is a reference as a request's query has it.
func refQuery(r instance.Ref) url.Values {
	switch {
	case r.ID != "":
		return url.Values{"id": {r.ID}}
	case r.Name != "":
		return url.Values{"name": {r.Name}}
	}
	return url.Values{"word": {r.Word}}
}

// ask sends a request and decodes the answer into result, unless that is nil.
func (c *Client) ask(ctx context.Context, method, path string, body, result any) error {
	resp, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if result == nil {
		return nil
	}
	return decode(resp.Body, result)
}

// decode reads an answer's JSON.
func decode(body io.Reader, result any) error {
	if err := json.NewDecoder(io.LimitReader(body, maxAnswer)).Decode(result); err != nil {
		return fmt.Errorf("read the daemon's answer: %w", err)
	}
	return nil
}

func (c *Client) send(ctx context.Context, method, path string, body any) (*http.Response, error) {
	req, err := request(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.web.Do(req)
	if err != nil {
		if urlErr := (*url.Error)(nil); errors.As(err, &urlErr) {
			err = urlErr.Err // its text has the made-up address
		}
		return nil, err
	}
	return resp, refused(resp)
}

// refused turns an answer with an error's status into that error, and closes it.
func refused(resp *http.Response) error {
	if resp.StatusCode < http.StatusBadRequest {
		return nil
	}
	defer resp.Body.Close()
	var f failure
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&f); err != nil || f.Error == "" {
		return &Error{"the daemon answered " + resp.Status + ": it may be of another version: nesim shutdown ends it"}
	}
	return f.err()
}

func request(ctx context.Context, method, path string, body any) (*http.Request, error) {
	var content io.Reader = http.NoBody
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("write the request: %w", err)
		}
		content = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://nesim"+path, content)
	if err != nil {
		return nil, fmt.Errorf("write the request: %w", err)
	}
	return req, nil
}

// Stream is a connection that can be closed one way.
type Stream interface {
	net.Conn
	CloseWrite() error
}

// open asks for a stream: a request that turns its own connection into one.
func (c *Client) open(ctx context.Context, path string, query url.Values) (Stream, error) {
	if err := c.reach(ctx); err != nil {
		return nil, err
	}
	if query != nil {
		path += "?" + query.Encode()
	}
	req, err := request(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", protocol)
	conn, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	s, err := upgrade(conn, req)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, err
	}
	return s, nil
}

func upgrade(conn *net.UnixConn, req *http.Request) (Stream, error) {
	if err := req.Write(conn); err != nil {
		return nil, fmt.Errorf("ask the daemon: %w", err)
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		return nil, fmt.Errorf("read the daemon's answer: %w", err)
	}
	if err := refused(resp); err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return nil, &Error{"the daemon answered " + resp.Status}
	}
	return &stream{UnixConn: conn, r: r}, nil
}
