package oci

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/require"
)

// serveEngine serves an engine's API on a socket.
func serveEngine(t *testing.T, socket string, api http.HandlerFunc) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(socket), 0o700))
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	s := &http.Server{Handler: api}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
}

// asked is an engine that has one image, and the paths that it was asked for.
func asked(archive, version string, paths *[]string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		*paths = append(*paths, r.URL.EscapedPath())
		switch {
		case strings.HasSuffix(r.URL.Path, "/_ping"):
			if version != "" {
				w.Header().Set("Api-Version", version)
			}
		case strings.HasSuffix(r.URL.Path, "/json"):
			fmt.Fprint(w, `{"Id":"sha256:00","Size":1}`)
		default:
			http.ServeFile(w, r, archive)
		}
	}
}

func TestTheNewestAPIThatBothKnowIsSpoken(t *testing.T) {
	noEngine(t)
	archive := save(t, newImage(t, v1.Config{Cmd: []string{"/app"}}))
	for theirs, want := range map[string]string{"": "1.24", "1.9": "1.9", "1.41": "1.41", "1.47": "1.47", "1.52": "1.47", "2.0": "1.47"} {
		socket := filepath.Join(t.TempDir(), "s")
		var paths []string
		serveEngine(t, socket, asked(archive, theirs, &paths))
		t.Setenv("DOCKER_HOST", "unix://"+socket)
		image, _ := open(t, "host.example:5000/team/app:1")
		require.Equal(t, LocalEngine, image.Source)
		require.Equal(t, `{"Id":"sha256:00","Size":1}`, string(image.Inspect))
		require.Equal(t, []string{"/_ping", "/v" + want + "/images/host.example:5000/team/app:1/json", "/v" + want + "/images/get"}, paths)
	}
	t.Setenv("DOCKER_API_VERSION", "1.30")
	socket := filepath.Join(t.TempDir(), "s")
	var paths []string
	serveEngine(t, socket, asked(archive, "1.44", &paths))
	t.Setenv("DOCKER_HOST", "unix://"+socket)
	open(t, "app")
	require.Equal(t, "/v1.30/images/app/json", paths[1])
}

func TestTheEngineIsFoundAsDockerFindsIt(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("DOCKER_HOST", "")
	t.Setenv("DOCKER_CONTEXT", "")
	t.Setenv("DOCKER_CONFIG", dir)
	t.Setenv("XDG_RUNTIME_DIR", dir)
	host := func() string {
		h, err := engineHost()
		require.NoError(t, err)
		return h
	}
	if _, err := os.Stat("/var/run/docker.sock"); err != nil {
		podman := filepath.Join(dir, "podman", "podman.sock")
		serveEngine(t, podman, func(http.ResponseWriter, *http.Request) {})
		require.Equal(t, "unix://"+podman, host())
	}
	sum := sha256.Sum256([]byte("away"))
	meta := filepath.Join(dir, "contexts", "meta", hex.EncodeToString(sum[:]))
	require.NoError(t, os.MkdirAll(meta, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(meta, "meta.json"), []byte(`{"Name":"away","Endpoints":{"docker":{"Host":"tcp://away:2375"}}}`), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"auths":{},"currentContext":"away"}`), 0o600))
	require.Equal(t, "tcp://away:2375", host())
	t.Setenv("DOCKER_CONTEXT", "none")
	_, err := engineHost()
	require.ErrorContains(t, err, `docker context "none": `)
	t.Setenv("DOCKER_CONTEXT", "default")
	require.NotContains(t, host(), "away")
	t.Setenv("DOCKER_HOST", "tcp://first:2375")
	require.Equal(t, "tcp://first:2375", host())
}

func TestAnEngineThatCannotBeAskedIsReportedInOneLine(t *testing.T) {
	noEngine(t)
	for host, want := range map[string]string{
		"ssh://build@host": "an engine behind ssh is not supported: forward its socket",
		"fd://":            "unknown kind of engine: use unix:// or tcp://",
		"nothing":          "unknown kind of engine",
	} {
		t.Setenv("DOCKER_HOST", host)
		text := refused(t, "app")
		require.Contains(t, text, "local engine: "+host+": "+want)
	}
	socket := filepath.Join(t.TempDir(), "s")
	serveEngine(t, socket, func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/_ping") {
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprint(w, `{"message":"the disk\nis gone"}`)
		}
	})
	t.Setenv("DOCKER_HOST", "unix://"+socket)
	require.Contains(t, refused(t, "app"), "local engine: it answers 500 Internal Server Error: the disk is gone")
	t.Setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
	t.Setenv("DOCKER_CERT_PATH", t.TempDir())
	require.Contains(t, refused(t, "app"), "DOCKER_CERT_PATH: ")
}
