package oci

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/eif/pack"
)

// Entries of layers.

func regular(name, text string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(text)), PAXRecords: map[string]string{textKey: text}}
}

func dir(name string) tar.Header { return tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755} }

func symlink(name, target string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}
}

func hardLink(name, target string) tar.Header {
	return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target}
}

// textKey is where regular keeps the content until the layer is written.
const textKey = "TEST.content"

// tarOf writes a tar archive.
func tarOf(t testing.TB, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		text := h.PAXRecords[textKey]
		more := map[string]string{}
		for key, value := range h.PAXRecords {
			if key != textKey {
				more[key] = value
			}
		}
		h.PAXRecords = more
		require.NoError(t, w.WriteHeader(&h))
		_, err := io.WriteString(w, text)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

// newImage makes an image of layers that are tar archives.
func newImage(t testing.TB, config v1.Config, layers ...[]byte) v1.Image {
	t.Helper()
	image, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{Architecture: "amd64", OS: "linux", Config: config})
	require.NoError(t, err)
	for _, data := range layers {
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
		require.NoError(t, err)
		image, err = mutate.AppendLayers(image, l)
		require.NoError(t, err)
	}
	return image
}

// save writes an image as `docker save` does, but with compressed layers.
func save(t testing.TB, image v1.Image) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.tar")
	tag, err := name.NewTag("example.com/app:1")
	require.NoError(t, err)
	require.NoError(t, tarball.WriteToFile(path, tag, image))
	return path
}

// saveLayout writes an image as an OCI layout folder.
func saveLayout(t testing.TB, image v1.Image, platform *v1.Platform) string {
	t.Helper()
	dir := t.TempDir()
	l, err := layout.Write(dir, empty.Index)
	require.NoError(t, err)
	var options []layout.Option
	if platform != nil {
		options = append(options, layout.WithPlatform(*platform))
	}
	require.NoError(t, l.AppendImage(image, options...))
	return dir
}

// archiveOf makes a tar archive of a folder.
func archiveOf(t testing.TB, dir string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "layout.tar")
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	w := tar.NewWriter(f)
	require.NoError(t, w.AddFS(os.DirFS(dir)))
	require.NoError(t, w.Close())
	return path
}

// open opens an image and returns its application, with all of its configuration.
func open(t testing.TB, path string) (*Image, pack.Application) {
	t.Helper()
	image, err := Open(t.Context(), path, Options{
		Honor: Honor{Entrypoint: true, WorkDir: true, User: true}, SpoolDir: t.TempDir(), Note: func(line string) { t.Log(line) },
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, image.Close()) })
	app, err := image.Application(t.Context())
	require.NoError(t, err)
	return image, app
}

// refused opens an image that must be refused, then or when its layers are applied.
func refused(t testing.TB, path string) string {
	t.Helper()
	image, err := Open(t.Context(), path, Options{SpoolDir: t.TempDir(), Honor: Honor{User: true}})
	if err == nil {
		defer image.Close()
		_, err = image.Application(t.Context())
	}
	require.Error(t, err)
	require.NotContains(t, err.Error(), "\n")
	return err.Error()
}

// contents lists a tree: of regular files the text, of links "-> target", of hard links "= name", of directories "/".
func contents(t testing.TB, entries []pack.Entry) map[string]string {
	t.Helper()
	list := map[string]string{}
	for _, e := range entries {
		switch {
		case e.LinkTo != "":
			list[e.Name] = "= " + e.LinkTo
		case e.Mode.IsDir():
			list[e.Name] = "/"
		case e.Mode&fs.ModeSymlink != 0:
			list[e.Name] = "-> " + e.Target
		case e.Mode.IsRegular():
			r, err := e.Open()
			require.NoError(t, err)
			text, err := io.ReadAll(r)
			require.NoError(t, err)
			require.NoError(t, r.Close())
			list[e.Name] = string(text)
		default:
			list[e.Name] = e.Mode.String()
		}
	}
	return list
}

// flatten applies layers and lists the tree.
func flatten(t testing.TB, layers ...[]byte) map[string]string {
	t.Helper()
	image, _ := open(t, save(t, newImage(t, v1.Config{Cmd: []string{"/app"}}, layers...)))
	tree, err := image.flatten(t.Context())
	require.NoError(t, err)
	return contents(t, tree.entries())
}

// noLeak checks at the test's end that no goroutine, file or spool has been left behind.
func noLeak(t testing.TB) {
	files := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		return len(list)
	}
	goroutines, open := runtime.NumGoroutine(), files()
	t.Cleanup(func() {
		for end := time.Now().Add(time.Minute); runtime.NumGoroutine() > goroutines || files() > open; runtime.Gosched() {
			require.True(t, time.Now().Before(end), "goroutines or files are left")
		}
	})
}

// saveUncompressed writes an image as `docker save` does, layers uncompressed.
func saveUncompressed(t testing.TB, config v1.Config, layers ...[]byte) string {
	t.Helper()
	file := &v1.ConfigFile{Architecture: "amd64", OS: "linux", Config: config, RootFS: v1.RootFS{Type: "layers"}}
	manifest := tarball.Descriptor{Config: "config.json"}
	var entries []tar.Header
	for n, data := range layers {
		id, _, err := v1.SHA256(bytes.NewReader(data))
		require.NoError(t, err)
		file.RootFS.DiffIDs = append(file.RootFS.DiffIDs, id)
		manifest.Layers = append(manifest.Layers, fmt.Sprintf("%d/layer.tar", n))
		entries = append(entries, regular(manifest.Layers[n], string(data)))
	}
	for name, value := range map[string]any{"config.json": file, "manifest.json": tarball.Manifest{manifest}} {
		text, err := json.Marshal(value)
		require.NoError(t, err)
		entries = append(entries, regular(name, string(text)))
	}
	path := filepath.Join(t.TempDir(), "saved.tar")
	require.NoError(t, os.WriteFile(path, tarOf(t, entries...), 0o600))
	return path
}

var discard = log.New(io.Discard, "", 0)
