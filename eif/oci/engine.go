package oci

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// engineTime is how long a container engine may take to answer a ping.
const engineTime = 10 * time.Second

// The versions of the Engine API: the newest that this client is written for, and that of an engine whose ping has no
// Api-Version header (https://docs.docker.com/reference/api/engine/, "Versioned API").
const (
	engineAPI    = "1.47"
	oldEngineAPI = "1.24"
)

// openEngine opens the image of a name that the local engine has. It reports false, with an error that says why, where
// another place may have it.
func (i *Image) openEngine(ctx context.Context, image string) (found bool, err error) {
	e, err := newEngine()
	if err != nil {
		return true, fmt.Errorf("local engine: %w", err)
	}
	defer e.client.CloseIdleConnections()
	if err := e.ping(ctx); err != nil {
		return ctx.Err() != nil, fmt.Errorf("no local engine answers at %s", e.host)
	}
	inspect, size, err := e.inspect(ctx, image)
	if errors.Is(err, errNoImage) {
		return false, err
	}
	if err != nil {
		return true, fmt.Errorf("local engine: %w", err)
	}
	saved, err := e.get(ctx, "/images/get?names="+url.QueryEscape(image))
	if err != nil {
		return true, fmt.Errorf("local engine: %w", err)
	}
	defer saved.Body.Close()
	done := int64(0)
	data, err := i.spool.add(ctx, saved.Body, func(n int) { done += int64(n); i.options.Progress(done, max(done, size)) })
	if err != nil {
		return true, fmt.Errorf("local engine: %w", err)
	}
	found, err = i.openTar(data)
	if err == nil && !found {
		err = errors.New("local engine: it saved no image")
	}
	i.Source, i.Inspect = LocalEngine, inspect
	return true, err
}

// engine is a container engine that speaks Docker's API: Docker, or Podman.
type engine struct {
	host   string // as DOCKER_HOST has it
	base   string // of its URLs
	client http.Client
}

var errNoImage = errors.New("the local engine has no such image")

// newEngine finds the engine that the docker command would ask.
func newEngine() (*engine, error) {
	host, err := engineHost()
	if err != nil {
		return nil, err
	}
	scheme, address, _ := strings.Cut(host, "://")
	e := &engine{host: host, base: "http://engine"}
	transport := &http.Transport{}
	e.client.Transport = transport
	switch scheme {
	case "unix":
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", address)
		}
	case "tcp", "http", "https":
		if transport.TLSClientConfig, err = engineTLS(); err != nil {
			return nil, err
		}
		e.base = "http://" + strings.TrimSuffix(address, "/")
		if transport.TLSClientConfig != nil || scheme == "https" {
			e.base = "https://" + strings.TrimSuffix(address, "/")
		}
	case "ssh":
		return nil, fmt.Errorf("%s: an engine behind ssh is not supported: forward its socket (ssh -L /tmp/docker.sock:/var/run/docker.sock HOST) and set DOCKER_HOST=unix:///tmp/docker.sock", host)
	default:
		return nil, fmt.Errorf("%s: unknown kind of engine: use unix:// or tcp://", host)
	}
	return e, nil
}

// engineHost is the engine's place as docker finds it: DOCKER_HOST, else that of the context in use, else Docker's socket.
// Where that does not exist, it is the first other socket, of a rootless Docker or Podman, that does.
func engineHost() (string, error) {
	if host := os.Getenv("DOCKER_HOST"); host != "" {
		return host, nil
	}
	if host, err := contextHost(); host != "" || err != nil {
		return host, err
	}
	const docker = "/var/run/docker.sock"
	run := cmp.Or(os.Getenv("XDG_RUNTIME_DIR"), fmt.Sprintf("/run/user/%d", os.Getuid()))
	for _, socket := range []string{docker, run + "/docker.sock", run + "/podman/podman.sock", "/run/podman/podman.sock"} {
		if info, err := os.Stat(socket); err == nil && info.Mode().Type() == os.ModeSocket {
			return "unix://" + socket, nil
		}
	}
	return "unix://" + docker, nil
}

// contextHost is the place that Docker's context in use names, empty for the default one: DOCKER_CONTEXT, else currentContext
// of config.json (https://docs.docker.com/engine/manage-resources/contexts/).
func contextHost() (string, error) {
	dir := os.Getenv("DOCKER_CONFIG")
	if home, err := os.UserHomeDir(); dir == "" && err == nil {
		dir = filepath.Join(home, ".docker")
	}
	name := os.Getenv("DOCKER_CONTEXT")
	if name == "" {
		var config struct {
			CurrentContext string `json:"currentContext"`
		}
		if readJSON(filepath.Join(dir, "config.json"), &config) == nil { // no file, or one for others to complain about
			name = config.CurrentContext
		}
	}
	if name == "" || name == "default" {
		return "", nil
	}
	var meta struct {
		Endpoints map[string]struct{ Host string }
	}
	sum := sha256.Sum256([]byte(name))
	if err := readJSON(filepath.Join(dir, "contexts", "meta", hex.EncodeToString(sum[:]), "meta.json"), &meta); err != nil {
		return "", fmt.Errorf("docker context %q: %w", name, err)
	}
	return meta.Endpoints["docker"].Host, nil
}

func readJSON(path string, v any) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return json.NewDecoder(io.LimitReader(f, maxDocument)).Decode(v)
}

// engineTLS is what DOCKER_CERT_PATH asks for, or nil: the certificates in its folder, and with DOCKER_TLS_VERIFY the
// engine's own checked.
func engineTLS() (*tls.Config, error) {
	dir := os.Getenv("DOCKER_CERT_PATH")
	if dir == "" {
		return nil, nil
	}
	own, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		return nil, fmt.Errorf("DOCKER_CERT_PATH: %w", err)
	}
	authority, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		return nil, fmt.Errorf("DOCKER_CERT_PATH: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		return nil, fmt.Errorf("DOCKER_CERT_PATH: no certificate is in %s", filepath.Join(dir, "ca.pem"))
	}
	return &tls.Config{Certificates: []tls.Certificate{own}, RootCAs: roots, InsecureSkipVerify: os.Getenv("DOCKER_TLS_VERIFY") == ""}, nil
}

// ping finds out which version of the API to speak: DOCKER_API_VERSION, else the newest that both sides know.
func (e *engine) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, engineTime)
	defer cancel()
	answer, err := e.get(ctx, "/_ping")
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	theirs := cmp.Or(answer.Header.Get("Api-Version"), oldEngineAPI)
	version := engineAPI
	if older(theirs, version) {
		version = theirs
	}
	e.base += "/v" + url.PathEscape(cmp.Or(os.Getenv("DOCKER_API_VERSION"), version))
	return nil
}

// older compares versions of the API, as 1.9 and 1.47. What is no version is older.
func older(a, b string) bool {
	parse := func(version string) (n int) {
		major, minor, _ := strings.Cut(version, ".")
		high, _ := strconv.Atoi(major)
		low, _ := strconv.Atoi(minor)
		return high<<16 + low
	}
	return parse(a) < parse(b)
}

// inspect returns what the engine says of an image, and its size in bytes.
func (e *engine) inspect(ctx context.Context, image string) (text []byte, size int64, err error) {
	path := url.URL{Path: "/images/" + image + "/json"}
	answer, err := e.get(ctx, path.EscapedPath())
	if err != nil {
		return nil, 0, err
	}
	defer answer.Body.Close()
	text, err = io.ReadAll(io.LimitReader(answer.Body, maxDocument+1))
	if err == nil && len(text) > maxDocument {
		err = fmt.Errorf("its description of the image has more than %d bytes", maxDocument)
	}
	var described struct{ Size int64 }
	if err == nil {
		err = json.Unmarshal(text, &described)
	}
	return text, described.Size, err
}

// get asks the engine, and returns its answer if that is a success.
func (e *engine) get(ctx context.Context, path string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, e.base+path, nil)
	if err != nil {
		return nil, err
	}
	answer, err := e.client.Do(request)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode == http.StatusOK {
		return answer, nil
	}
	defer answer.Body.Close()
	if answer.StatusCode == http.StatusNotFound {
		return nil, errNoImage
	}
	var complaint struct{ Message string } // ErrorResponse of the API
	_ = json.NewDecoder(io.LimitReader(answer.Body, 64<<10)).Decode(&complaint)
	return nil, fmt.Errorf("it answers %s: %.200s", answer.Status, strings.Join(strings.Fields(complaint.Message), " "))
}
