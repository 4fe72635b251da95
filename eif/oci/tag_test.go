package oci

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/stretchr/testify/require"
)

// saveSeveral writes images with their names as `docker save` does.
func saveSeveral(t testing.TB, images map[string]v1.Image) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "several.tar")
	tags := map[name.Tag]v1.Image{}
	for n, image := range images {
		tag, err := name.NewTag(n)
		require.NoError(t, err)
		tags[tag] = image
	}
	require.NoError(t, tarball.MultiWriteToFile(path, tags))
	return path
}

// saveNamed writes images with names by annotations as an OCI layout folder.
func saveNamed(t testing.TB, annotation string, images map[string]v1.Image) string {
	t.Helper()
	dir := t.TempDir()
	l, err := layout.Write(dir, empty.Index)
	require.NoError(t, err)
	for n, image := range images {
		require.NoError(t, l.AppendImage(image, layout.WithAnnotations(map[string]string{annotation: n})))
	}
	return dir
}

func TestOneOfSeveralImagesIsChosenByItsTag(t *testing.T) {
	noEngine(t)
	one := newImage(t, v1.Config{Cmd: []string{"/one"}}, tarOf(t, regular("1", "")))
	two := newImage(t, v1.Config{Cmd: []string{"/two"}}, tarOf(t, regular("2", "")))
	three := newImage(t, v1.Config{Cmd: []string{"/three"}}, tarOf(t, regular("3", "")))
	several := map[string]v1.Image{"app:1": one, "app:latest": two, "example.com:5000/team/web:3": three}
	docker, named := saveSeveral(t, several), saveNamed(t, imageNameAnnotation, several)
	tagged := saveNamed(t, refNameAnnotation, map[string]v1.Image{"1": one, "latest": two, "3": three})
	for _, path := range []string{docker, named, archiveOf(t, named), tagged, archiveOf(t, tagged)} {
		full := path != tagged && filepath.Base(path) != "layout.tar"
		for tag, want := range map[string]string{
			"1": "/one", "latest": "/two", "3": "/three",
			"app:1": "/one", "app": "/two", "docker.io/library/app:1": "/one", "example.com:5000/team/web:3": "/three",
		} {
			if !full && len(tag) > 1 && tag != "latest" {
				continue
			}
			image, app := open(t, path+":"+tag)
			require.Equal(t, []string{want}, app.Command, tag)
			require.Equal(t, path, image.Path)
		}
		require.Contains(t, refused(t, path), "it holds 3 images, ")
		require.Contains(t, refused(t, path), ": name one, as in "+path+":")
		require.Contains(t, refused(t, path+":none"), "it holds no image none, but ")
	}

	t.Chdir(filepath.Dir(docker))
	_, app := open(t, "several.tar:app:1")
	require.Equal(t, []string{"/one"}, app.Command, "it need not look like a path")
	require.Contains(t, refused(t, "./none.tar:1"), "there is no such file")
	require.NoError(t, os.Rename("several.tar", "several.tar:app"))
	_, app = open(t, "several.tar:app:1")
	require.Equal(t, []string{"/one"}, app.Command, "a path may have colons itself")

	same := saveSeveral(t, map[string]v1.Image{"app:1": one, "web:1": one})
	_, app = open(t, same)
	require.Equal(t, []string{"/one"}, app.Command, "one image with two names leaves no choice")
	single := saveSeveral(t, map[string]v1.Image{"app:1": one})
	require.Contains(t, refused(t, single+":2"), "it holds no image 2, but ")
	two2 := saveSeveral(t, map[string]v1.Image{"app:1": one, "web:1": two})
	require.Contains(t, refused(t, two2+":1"), "it holds 2 images, ")
}

// FuzzIndex chooses from an arbitrary index by an arbitrary tag.
func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:0000000000000000000000000000000000000000000000000000000000000000","platform":{"os":"linux","architecture":"amd64"},"annotations":{"org.opencontainers.image.ref.name":"1"}}]}`), "1")
	f.Add([]byte(`{"manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"sha256:0000000000000000000000000000000000000000000000000000000000000000"}]}`), "")
	f.Fuzz(func(t *testing.T, text []byte, tag string) {
		i := &Image{Path: "x.tar", tag: tag}
		all, err := parseIndex(text)
		if err == nil {
			all, err = i.pickOCI(all)
		}
		if err != nil {
			return
		}
		manifest, _, err := choose(all, func(v1.Descriptor) ([]byte, error) { return text, nil }) // an index in itself, too
		require.True(t, (err == nil) == (manifest != nil))
	})
}
