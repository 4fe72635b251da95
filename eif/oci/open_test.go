package oci

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/eif/pack"
)

// noEngine makes sure that no engine of this machine's is asked.
func noEngine(t testing.TB) {
	t.Setenv("DOCKER_HOST", "unix://"+filepath.Join(t.TempDir(), "none.sock"))
	t.Setenv("DOCKER_CONFIG", t.TempDir())
}

// startRegistry starts a registry in this process and returns its host and port.
func startRegistry(t testing.TB) string {
	s := httptest.NewServer(registry.New(registry.Logger(discard)))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// startEngine starts something that looks like Docker, with one image, at DOCKER_HOST.
func startEngine(t testing.TB, image, archive string) {
	socket := filepath.Join(t.TempDir(), "docker.sock")
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v"), "/")
		switch {
		case strings.HasSuffix(r.URL.Path, "/_ping"):
			w.Header().Set("Api-Version", "1.45")
		case path == "images/"+image+"/json":
			fmt.Fprint(w, `{"Id":"sha256:00","RepoTags":["`+image+`"],"GraphDriver":{"Data":{"Dir":"/var/lib"}},"Size":1}`)
		case path == "images/get" && r.URL.Query().Get("names") == image:
			http.ServeFile(w, r, archive)
		default:
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprintf(w, `{"message":"No such image: %s"}`, r.URL)
		}
	})}
	done := make(chan struct{})
	go func() { s.Serve(l); close(done) }()
	t.Cleanup(func() { s.Close(); <-done })
	t.Setenv("DOCKER_HOST", "unix://"+socket)
}

func TestAnImageIsTheSameWhereverItComesFrom(t *testing.T) {
	noEngine(t)
	image := newImage(t, v1.Config{
		Entrypoint: []string{"/bin/web"}, Cmd: []string{"-v"}, Env: []string{"PATH=/bin", "A=1"},
		WorkingDir: "/srv/new", User: "web",
	},
		tarOf(t, regular("bin/web", "a program"), regular("etc/passwd", "root:x:0:0::/root:/bin/sh\nweb:x:1000:100::/home/web:/bin/sh\n"), regular("etc/group", "users:x:100:\naudio:x:29:web\n")),
		tarOf(t, regular("etc/web.conf", "port=1")),
	)
	docker, oci := save(t, image), saveLayout(t, image, nil)
	compressed := filepath.Join(t.TempDir(), "image.tar.gz")
	data, err := os.ReadFile(docker)
	require.NoError(t, err)
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	w.Write(data)
	w.Close()
	require.NoError(t, os.WriteFile(compressed, z.Bytes(), 0o600))
	host := startRegistry(t)
	ref, err := name.NewTag(host + "/team/web:1")
	require.NoError(t, err)
	require.NoError(t, remote.Write(ref, image))

	check := func(from, source string) {
		t.Run(source, func(t *testing.T) {
			noLeak(t)
			image, app := open(t, from)
			require.Equal(t, source, image.Source)
			require.Equal(t, []string{"/bin/web", "-v"}, app.Command)
			require.Equal(t, []string{"PATH=/bin", "A=1", "HOME=/home/web"}, app.Env)
			require.Equal(t, "/srv/new", app.WorkDir)
			require.Equal(t, &pack.User{UID: 1000, GID: 100, Groups: []uint32{29}}, app.User)
			list := contents(t, app.Files)
			require.Equal(t, "a program", list["bin/web"])
			require.Equal(t, "port=1", list["etc/web.conf"])
			require.Equal(t, "/", list["srv/new"])
			var inspect map[string]any
			require.NoError(t, json.Unmarshal(image.Inspect, &inspect))
			require.NotContains(t, inspect, "GraphDriver")
			require.Contains(t, inspect["Id"], "sha256:")
		})
	}
	check(docker, "archive")
	check(archiveOf(t, oci), "archive")
	check(compressed, "archive")
	check(oci, "OCI layout")
	check(ref.String(), "registry")
	startEngine(t, "web:1", docker)
	check("web:1", "local engine")
	check(ref.String(), "registry") // the engine has no such image
}

func TestTheImageForLinuxOnAMD64IsTakenOutOfAnIndex(t *testing.T) {
	noEngine(t)
	arm := newImage(t, v1.Config{Cmd: []string{"/arm"}})
	amd := newImage(t, v1.Config{Cmd: []string{"/amd"}})
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: arm, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}}},
		mutate.IndexAddendum{Add: amd, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}},
		mutate.IndexAddendum{Add: empty.Image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "unknown", Architecture: "unknown"}}},
	)
	dir := t.TempDir()
	_, err := layout.Write(dir, index)
	require.NoError(t, err)
	_, app := open(t, dir)
	require.Equal(t, []string{"/amd"}, app.Command)

	nested := t.TempDir() // as buildx writes it
	l, err := layout.Write(nested, empty.Index)
	require.NoError(t, err)
	require.NoError(t, l.AppendIndex(index))
	_, app = open(t, nested)
	require.Equal(t, []string{"/amd"}, app.Command)

	ref, err := name.NewTag(startRegistry(t) + "/multi:1")
	require.NoError(t, err)
	require.NoError(t, remote.WriteIndex(ref, index))
	_, app = open(t, ref.String())
	require.Equal(t, []string{"/amd"}, app.Command)
}

func TestAnImageForAnotherMachineIsRefused(t *testing.T) {
	noEngine(t)
	image := newImage(t, v1.Config{Cmd: []string{"/app"}})
	require.Contains(t, refused(t, saveLayout(t, image, &v1.Platform{OS: "linux", Architecture: "arm64"})),
		"it is for linux/arm64, enclaves here are linux/amd64: build or pull it with --platform linux/amd64")
	image, err := mutate.ConfigFile(image, &v1.ConfigFile{OS: "linux", Architecture: "arm64"})
	require.NoError(t, err)
	require.Contains(t, refused(t, save(t, image)), "it is for linux/arm64, enclaves here are linux/amd64")
}

func TestWhatIsNoImageIsToldInOneLine(t *testing.T) {
	noEngine(t)
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, data, 0o600))
		return path
	}
	whole := newImage(t, v1.Config{Cmd: []string{"/app"}}, tarOf(t, regular("a", "b")))
	archive, err := os.ReadFile(save(t, whole))
	require.NoError(t, err)
	uncompressed := saveUncompressed(t, v1.Config{Cmd: []string{"/app"}}, tarOf(t, regular("a", "content")))
	damaged, err := os.ReadFile(uncompressed)
	require.NoError(t, err)
	damaged = bytes.Replace(damaged, []byte("content"), []byte("CONTENT"), 1)
	twice := tarOf(t, regular("manifest.json", `[{"Config":"a","RepoTags":["a:1"]},{"Config":"b","RepoTags":["b:1"]}]`))
	for want, path := range map[string]string{
		"there is no such file":                          dir + "/none",
		"it is neither an image archive nor an OCI":      dir,
		"it is neither an image archive nor an OCI l":    write("text", []byte("text")),
		"it holds no image":                              write("index.tar", tarOf(t, regular("index.json", `{}`))),
		"its index cannot be read":                       write("bad.tar", tarOf(t, regular("index.json", `?`))),
		"its manifest.json cannot be read":               write("bad2.tar", tarOf(t, regular("manifest.json", `{}`))),
		"config.json: file does not exist":               write("bad3.tar", tarOf(t, regular("manifest.json", `[{"Config":"config.json"}]`))),
		"c: is a link to itself":                         write("bad4.tar", tarOf(t, regular("manifest.json", `[{"Config":"c"}]`), symlink("c", "c"))),
		"its configuration cannot be read":               write("bad5.tar", tarOf(t, regular("manifest.json", `[{"Config":"c"}]`), regular("c", "?"))),
		"it has 0 layers and its configuration tells of": write("bad6.tar", tarOf(t, regular("manifest.json", `[{"Config":"c"}]`), regular("c", `{"rootfs":{"diff_ids":["sha256:`+strings.Repeat("0", 64)+`"]}}`))),
		"it holds 2 images, a:1, b:1: name one, as in":   write("bad7.tar", twice),
		"the archive is damaged":                         write("cut.tar", archive[:700]),
		"layer 1: it is damaged: its digest is sha256:":  write("damaged.tar", damaged),
		"names no command to run":                        save(t, newImage(t, v1.Config{})),
		"working directory: ":                            save(t, newImage(t, v1.Config{Cmd: []string{"a"}, WorkingDir: "/f/x"}, tarOf(t, regular("f", "")))),
		"user \"nobody\": ":                              save(t, newImage(t, v1.Config{Cmd: []string{"a"}, User: "nobody"})),
		"no name that an image can have":                 "Not A Name",
		"no local engine answers at unix://":             "127.0.0.1:1/no/registry",
		"there is no such file, and no local engine":     "app.tar",
	} {
		require.Contains(t, refused(t, path), want)
	}
}

func TestAFileWithAnImagesNameDoesNotHideTheImage(t *testing.T) {
	noEngine(t)
	archive := save(t, newImage(t, v1.Config{Cmd: []string{"/app"}}))
	startEngine(t, "hello", archive)
	t.Chdir(t.TempDir())
	require.NoError(t, os.WriteFile("hello", []byte("something else"), 0o600))
	image, _ := open(t, "hello")
	require.Equal(t, "local engine", image.Source)

	require.NoError(t, os.Rename(archive, "hello"))
	image, _ = open(t, "hello")
	require.Equal(t, "archive", image.Source)
}

func TestAMistypedArchiveIsNotLookedForInARegistry(t *testing.T) {
	noEngine(t)
	host := startRegistry(t)
	for _, name := range []string{host + "/app.tar", "app.tar.gz", "images/app.tgz"} {
		var notes []string
		_, err := Open(t.Context(), name, Options{SpoolDir: t.TempDir(), Note: func(line string) { notes = append(notes, line) }})
		require.ErrorContains(t, err, "image "+name+": there is no such file, and no local engine answers at ")
		require.Empty(t, notes, "a registry was asked")
	}
	t.Chdir(t.TempDir())
	require.NoError(t, os.WriteFile("app.tar", []byte("text"), 0o600))
	require.Contains(t, refused(t, "app.tar"), "it is neither an image archive nor an OCI layout folder")
	archive := save(t, newImage(t, v1.Config{Cmd: []string{"/app"}}))
	startEngine(t, "other.tar", archive)
	image, _ := open(t, "other.tar") // an engine's image may have such a name
	require.Equal(t, LocalEngine, image.Source)
}

func TestTheUserMayBeNumbers(t *testing.T) {
	accounts := tarOf(t, regular("etc/passwd", "web:x:1000:100::/home/web:/bin/sh\n"), regular("etc/group", "users:x:100:\naudio:x:29:web\n"))
	for spec, want := range map[string]*pack.User{
		"":             nil,
		"0":            nil,
		"web":          {UID: 1000, GID: 100, Groups: []uint32{29}},
		"web:audio":    {UID: 1000, GID: 29},
		"1000":         {UID: 1000, GID: 100, Groups: []uint32{29}},
		"5":            {UID: 5},
		"5:6":          {UID: 5, GID: 6},
		"2147483647:1": {UID: 2147483647, GID: 1},
	} {
		_, app := open(t, save(t, newImage(t, v1.Config{Cmd: []string{"a"}, User: spec}, accounts)))
		require.Equal(t, want, app.User, spec)
	}
}

func TestLostFileCapabilitiesAreToldOnce(t *testing.T) {
	capable := regular("bin/ping", "x")
	capable.PAXRecords["SCHILY.xattr.security.capability"] = "\x01\x00"
	capable.PAXRecords["SCHILY.xattr.user.other"] = "y"
	other := capable
	other.Name = "bin/ping6"
	path := save(t, newImage(t, v1.Config{Cmd: []string{"a"}}, tarOf(t, capable), tarOf(t, other)))
	var notes []string
	image, err := Open(t.Context(), path, Options{SpoolDir: t.TempDir(), Note: func(line string) { notes = append(notes, line) }})
	require.NoError(t, err)
	defer image.Close()
	_, err = image.Application(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"file capabilities are lost: a ramdisk has no place for them, on AWS neither"}, notes)
}
