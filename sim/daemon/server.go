package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nesim/nesim/internal/private"
	"github.com/nesim/nesim/sim/instance"
	"github.com/nesim/nesim/sim/vsock"
)

const (
	maxBody     = 64 << 10         // of a request, in bytes
	endPatience = 30 * time.Second // for requests under way when the daemon ends
)

// Config says how a daemon runs.
type Config struct {
	Dir      string // its private folder
	Version  string
	Instance instance.Config
	Log      *slog.Logger
}

// Run serves a simulated instance in cfg.Dir until ctx ends or a client asks for the end; it then ends every
// enclave. Where another daemon holds the folder it returns at once with an error.
func Run(ctx context.Context, cfg Config) error {
	folder, err := makePrivate(cfg.Dir)
	if err != nil {
		return err
	}
	defer folder.Close()
	held, err := hold(ctx, folder)
	if err != nil {
		return err
	}
	defer held.Close()
	if err := removeStale(cfg.Dir); err != nil {
		return err
	}
	cfg.Instance.Dir = filepath.Join(cfg.Dir, "vm")
	cfg.Instance.PCISocket = filepath.Join(cfg.Dir, pciSocketName)
	cfg.Instance.Log = cfg.Log
	inst, err := instance.Start(ctx, cfg.Instance)
	if err != nil {
		return err
	}
	return errors.Join(serve(ctx, cfg, inst), inst.Close())
}

// serve answers requests until ctx ends or one of them asks for the end.
func serve(ctx context.Context, cfg Config, inst *instance.Instance) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	path := filepath.Join(cfg.Dir, socketName)
	listener, err := private.Listen(path)
	if err != nil {
		return fmt.Errorf("listen for commands: %w", err)
	}
	s := &server{cfg: cfg, inst: inst, ctx: ctx, shutdown: cancel}
	web := &http.Server{
		Handler:           s.routes(),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(cfg.Log.Handler(), slog.LevelWarn),
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	var closer sync.WaitGroup
	closer.Go(func() {
		<-ctx.Done()
		patience, done := context.WithTimeout(context.Background(), endPatience)
		defer done()
		_ = web.Shutdown(patience) // waits for the handlers, whose contexts have ended
		web.Close()
	})
	cfg.Log.Info("daemon serves", "socket", path, "version", cfg.Version)
	err = web.Serve(ownListener{listener})
	cancel()
	closer.Wait()
	s.wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// ownListener accepts connections of this user's processes and root's alone.
type ownListener struct{ *net.UnixListener }

func (l ownListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if private.CheckPeer(conn) == nil {
			return conn, nil
		}
		conn.Close()
	}
}

type server struct {
	cfg      Config
	inst     *instance.Instance
	ctx      context.Context
	shutdown context.CancelFunc

	// streams counts the handlers, and the connections that they have taken from the HTTP server, which no longer waits
	// for those. It grows only under mu while the daemon serves, or from within a handler.
	streams sync.WaitGroup
	mu      sync.Mutex // a leaf
	ended   bool
}

// enter counts one more handler, unless the daemon no longer serves.
func (s *server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.streams.Add(1)
	}
	return !s.ended
}

// wait waits for every handler and every connection taken, whose context has ended.
func (s *server) wait() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.streams.Wait()
}

func (s *server) routes() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, h func(http.ResponseWriter, *http.Request) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if !s.enter() {
				answer(w, http.StatusServiceUnavailable, failed(errors.New("the daemon is ending")))
				return
			}
			defer s.streams.Done()
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
			if err := h(w, r); err != nil {
				answer(w, http.StatusUnprocessableEntity, failed(err))
			}
		})
	}
	handle("GET "+pathAbout, s.about)
	handle("POST "+pathShutdown, s.end)
	handle("POST "+pathEnclaves, s.run)
	handle("GET "+pathEnclaves, s.describe)
	handle("DELETE "+pathEnclave, s.terminate)
	handle("GET "+pathWait, s.await)
	handle("GET "+pathConsole, s.console)
	handle("GET "+pathVsockDial, s.dial)
	handle("GET "+pathListen, s.listen)
	handle("GET "+pathParentVsock, s.parentVsock)
	return mux
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client may be gone
}

func (s *server) about(w http.ResponseWriter, _ *http.Request) error {
	qemu, accel := s.inst.QEMU()
	answer(w, http.StatusOK, About{
		PID: os.Getpid(), Version: s.cfg.Version, Dir: s.cfg.Dir, PCISocket: s.cfg.Instance.PCISocket,
		QEMU: qemu, Accel: accel, CPUPool: s.inst.CPUPool(), ThreadsPerCore: s.inst.ThreadsPerCore(),
		InstanceID: s.inst.ID(),
	})
	return nil
}

func (s *server) end(w http.ResponseWriter, _ *http.Request) error {
	s.cfg.Log.Info("daemon ends: asked")
	answer(w, http.StatusOK, struct{}{})
	_ = http.NewResponseController(w).Flush()
	s.shutdown()
	return nil
}

// run answers with a line of JSON for each step and one for the result, so that the command can show progress.
func (s *server) run(w http.ResponseWriter, r *http.Request) error {
	var spec instance.RunSpec
	body, err := io.ReadAll(r.Body) // to the end: from there on the HTTP server notices a client that goes
	if err == nil {
		spec, err = parseRunSpec(body)
	}
	if err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	lines := json.NewEncoder(w)
	send := func(m message) {
		_ = lines.Encode(m)
		_ = http.NewResponseController(w).Flush()
	}
	info, err := s.inst.RunEnclave(r.Context(), spec, func(step string) { send(message{Progress: step}) })
	if err != nil {
		s.cfg.Log.Warn("run-enclave failed", "eif", spec.EIFPath, "error", err)
		send(message{failure: failed(err)})
		return nil
	}
	send(message{Run: &info})
	return nil
}

func (s *server) describe(w http.ResponseWriter, r *http.Request) error {
	answer(w, http.StatusOK, s.inst.Enclaves(r.URL.Query().Has("metadata")))
	return nil
}

func (s *server) terminate(w http.ResponseWriter, r *http.Request) error {
	enclave, err := reference(r.URL.Query())
	if err != nil {
		return err
	}
	ending, err := s.inst.Terminate(enclave)
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, ending)
	return nil
}

func (s *server) await(w http.ResponseWriter, r *http.Request) error {
	enclave, err := reference(r.URL.Query())
	if err != nil {
		return err
	}
	ending, err := s.inst.WaitEnclave(r.Context(), enclave)
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, ending)
	return nil
}

func (s *server) console(w http.ResponseWriter, r *http.Request) error {
	enclave, err := reference(r.URL.Query())
	if err != nil {
		return err
	}
	conn, err := s.inst.Console(r.Context(), enclave)
	if err != nil {
		return err
	}
	return s.join(w, conn)
}

func (s *server) dial(w http.ResponseWriter, r *http.Request) error {
	cid, err := number(r.URL.Query(), "cid")
	if err != nil {
		return err
	}
	port, err := number(r.URL.Query(), "port")
	if err != nil {
		return err
	}
	dial := s.inst.DialVsock
	if r.URL.Query().Has("wait") {
		dial = s.inst.AwaitVsock
	}
	conn, err := dial(r.Context(), cid, port)
	if err != nil {
		return err
	}
	return s.join(w, conn)
}

// listen waits for one connection to a port of the parent. The client goes on when it arrives.
func (s *server) listen(w http.ResponseWriter, r *http.Request) error {
	port, err := number(r.URL.Query(), "port")
	if err != nil {
		return err
	}
	accept := s.inst.AcceptVsock
	if r.URL.Query().Has("keep") {
		accept = s.inst.AcceptKept
	}
	conn, err := accept(r.Context(), port)
	if err != nil {
		return err
	}
	return s.join(w, conn)
}

// join takes the connection over from the HTTP server and copies between it and conn, both ways, until both have
// closed or the daemon ends.
func (s *server) join(w http.ResponseWriter, conn vsock.Conn) error {
	taken, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		conn.Close()
		return fmt.Errorf("take the connection over: %w", err)
	}
	client := &stream{UnixConn: taken.(*net.UnixConn), r: buffered.Reader}
	_ = client.SetDeadline(time.Time{})
	_, err = io.WriteString(client, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+protocol+"\r\n\r\n")
	if err != nil {
		client.Close()
		conn.Close()
		return nil
	}
	s.streams.Go(func() { _ = vsock.Splice(s.ctx, client, conn) }) // who broke it off knows
	return nil
}
