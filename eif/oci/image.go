package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Limits of what an image may have.
const (
	maxDocument = 8 << 20  // bytes of a manifest, an index or a configuration
	maxLayers   = 512      // layers; engines stop at 127
	maxSize     = 16 << 30 // bytes of all layers unpacked, and of all their files
)

// Options are what Open and Application may be given.
type Options struct {
	// SpoolDir is the folder for unpacked layers; "" is $TMPDIR, else /var/tmp, which unlike /tmp is rarely in memory.
	SpoolDir string
	// Honor names what is taken although nitro-cli ignores it.
	Honor Honor
	// Note is told what the user should know and is no error, a line at a time.
	Note func(line string)
	// Progress is called from time to time with how many bytes of layers have been read, of how many: 0 where unknown.
	Progress func(done, total int64)
}

// Where an image was found.
const (
	Archive     = "archive"
	Layout      = "OCI layout"
	LocalEngine = "local engine"
	Registry    = "registry"
)

// Image is a container image for linux/amd64.
type Image struct {
	Source string         // where it was found
	Name   string         // as it was asked for
	Path   string         // of the archive or layout folder that it was found in; "" where in none
	ID     v1.Hash        // the digest of its configuration
	Config *v1.ConfigFile // never nil

	// Inspect is what, but for the engine's own store, `docker image inspect` says of it, as JSON, or as much of that as can be told without an engine.
	Inspect json.RawMessage

	tag     string // of the image in the archive or folder; "" where not given
	layers  []layer
	spool   *spool
	options Options
	closers []io.Closer
}

// layer is where a layer comes from.
type layer struct {
	diffID v1.Hash                       // of its tar archive, unpacked
	size   int64                         // in bytes as it is stored, for the progress
	stored *io.SectionReader             // where it lies in a file
	fetch  func() (io.ReadCloser, error) // where it does not
}

// Open finds an image by the path of an archive or a layout folder, or by its name. A path may be followed by a colon
// and the name, or the tag, of one of several images there. A name that begins with "/", "./" or "../" is a path; any
// other is one only if an archive or a layout is there. No registry is asked for a name that ends as an archive's does,
// such as app.tar. The caller must close the Image.
// Errors are one line and say what to do.
func Open(ctx context.Context, name string, options Options) (*Image, error) {
	if options.Note == nil {
		options.Note = func(string) {}
	}
	if options.Progress == nil {
		options.Progress = func(_, _ int64) {}
	}
	i := &Image{Name: name, spool: &spool{dir: options.SpoolDir, limit: maxSize}, options: options}
	found, err := i.openFile(ctx, name)
	if err == nil && !found {
		err = i.openReference(ctx, name)
	}
	if err == nil {
		err = i.check()
	}
	if err != nil {
		i.Close()
		return nil, fmt.Errorf("image %s: %w", name, err)
	}
	return i, nil
}

// Close frees what the image holds. Its Application's files can no longer be read then.
func (i *Image) Close() error {
	var errs []error
	for _, c := range append(i.closers, i.spool) {
		errs = append(errs, c.Close())
	}
	i.closers = nil
	return errors.Join(errs...)
}

// setLayers takes the layers, whose diffIDs the configuration has.
func (i *Image) setLayers(layers []layer) error {
	ids := i.Config.RootFS.DiffIDs
	switch {
	case len(layers) != len(ids):
		return fmt.Errorf("it has %d layers and its configuration tells of %d", len(layers), len(ids))
	case len(layers) > maxLayers:
		return fmt.Errorf("it has %d layers, %d is the limit", len(layers), maxLayers)
	}
	for n := range layers {
		layers[n].diffID = ids[n]
	}
	i.layers = layers
	return nil
}

// check refuses what cannot run in an enclave here.
func (i *Image) check() error {
	if os, arch := i.Config.OS, i.Config.Architecture; os != "" && os != "linux" || arch != "" && arch != "amd64" {
		return fmt.Errorf("it is for %s/%s, enclaves here are linux/amd64: build or pull it with --platform linux/amd64", os, arch)
	}
	if i.Inspect = withoutStore(i.Inspect); i.Inspect == nil {
		i.Inspect = i.describe()
	}
	return nil
}

// maxInspect is the most that is kept of an engine's words, in bytes: they go into an EIF's metadata.
const maxInspect = 256 << 10

// withoutStore drops what an engine tells of its own store rather than of the image, so that the same image is
// described the same. It returns nil for what is no JSON object, or too long.
func withoutStore(inspect json.RawMessage) json.RawMessage {
	var keys map[string]json.RawMessage
	if len(inspect) > maxInspect || json.Unmarshal(inspect, &keys) != nil {
		return nil
	}
	delete(keys, "GraphDriver")
	delete(keys, "Metadata")
	text, err := json.Marshal(keys)
	if err != nil {
		return nil
	}
	return text
}

// describe makes up what `docker image inspect` would say. It depends on the image alone.
func (i *Image) describe() json.RawMessage {
	type rootFS struct {
		Type   string
		Layers []v1.Hash
	}
	text, err := json.Marshal(struct {
		ID           string `json:"Id"`
		RepoTags     []string
		Architecture string
		OS           string `json:"Os"`
		Created      v1.Time
		Config       v1.Config
		RootFS       rootFS
	}{
		i.ID.String(), []string{}, i.Config.Architecture, i.Config.OS, i.Config.Created, i.Config.Config,
		rootFS{i.Config.RootFS.Type, i.Config.RootFS.DiffIDs},
	})
	if err != nil {
		return nil // a year that JSON has no form for
	}
	return text
}

// looksLikePath reports whether a name can only be a path.
func looksLikePath(name string) bool {
	return strings.HasPrefix(name, "/") || strings.HasPrefix(name, "./") || strings.HasPrefix(name, "../")
}

// looksLikeArchive reports whether a name ends as an archive's does. A registry's image could have such a name; a file that
// was mistyped is far likelier.
func looksLikeArchive(name string) bool {
	for _, ending := range []string{".tar", ".tgz", ".tar.gz", ".tar.zst", ".tar.xz", ".tar.bz2"} {
		if strings.HasSuffix(strings.ToLower(name), ending) {
			return true
		}
	}
	return false
}

// openFile opens the archive or layout folder at a path, or the image of a tag in it. It reports false where there is
// none and the name may mean something else.
func (i *Image) openFile(ctx context.Context, name string) (found bool, err error) {
	_, missing := os.Stat(name)
	if missing == nil {
		return i.openPath(ctx, name)
	}
	for _, split := range splitTag(name) {
		if _, err := os.Stat(split[0]); err != nil {
			continue
		}
		i.tag = split[1]
		if found, err := i.openPath(ctx, split[0]); found || err != nil {
			return found, err
		}
		i.tag = ""
	}
	if looksLikePath(name) {
		return true, fmt.Errorf("there is no such file: %w", errors.Unwrap(missing))
	}
	return false, nil
}

// openPath opens the archive or layout folder that is there.
func (i *Image) openPath(ctx context.Context, path string) (found bool, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return false, err
	}
	i.Path = path
	switch {
	case info.IsDir():
		found, err = i.openLayout(path)
	case info.Mode().IsRegular():
		found, err = i.openArchive(ctx, path)
	}
	if !found && err == nil && (looksLikePath(path) || looksLikeArchive(path)) {
		err = errors.New("it is neither an image archive nor an OCI layout folder (a plain folder is packed by --rootfs)")
	}
	if !found {
		i.Path = ""
	}
	return found || err != nil, err
}
