package oci

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// store is where an image's files lie by their names: a folder, or an archive of one. A missing file is fs.ErrNotExist.
type store interface {
	open(name string) (*io.SectionReader, error)
}

// openLayout opens an OCI image layout folder. It reports false where dir is none.
func (i *Image) openLayout(dir string) (found bool, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return false, err
	}
	i.closers = append(i.closers, root)
	i.Source = Layout
	return i.openStore(&folder{root: root, image: i})
}

// openArchive opens a `docker save` or OCI archive, which may be compressed. It reports false where the file is none.
func (i *Image) openArchive(ctx context.Context, path string) (found bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	i.closers = append(i.closers, f)
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	data := io.NewSectionReader(f, 0, info.Size())
	unpacked, err := decompress(data)
	if err != nil {
		return false, err
	}
	if unpacked != nil {
		defer unpacked.Close()
		if data, err = i.spool.add(ctx, unpacked, func(int) {}); err != nil {
			return false, fmt.Errorf("the archive cannot be unpacked: %w", err)
		}
	}
	return i.openTar(data)
}

func (i *Image) openTar(data *io.SectionReader) (found bool, err error) {
	i.Source = Archive
	archive, err := indexTar(data)
	if err != nil {
		return false, err
	}
	return i.openStore(archive)
}

// openStore reads the image in a store. It reports false where there is none. Archives of newer engines are both kinds;
// then manifest.json is preferred, as the simpler one, unless it leaves a choice.
func (i *Image) openStore(s store) (found bool, err error) {
	var images tarball.Manifest
	docker, err := document(s, "manifest.json")
	if err == nil {
		if err := json.Unmarshal(docker, &images); err != nil {
			return true, fmt.Errorf("its manifest.json cannot be read: %w", err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return true, err
	}
	one, choice := i.pickDocker(images)
	if choice == nil {
		return true, i.openDocker(s, one)
	}
	index, err := document(s, "index.json")
	switch {
	case err == nil:
		return true, i.openOCI(s, index)
	case !errors.Is(err, fs.ErrNotExist):
		return true, err
	case len(images) == 0:
		return false, nil
	}
	return true, choice
}

// openDocker reads an image of `docker save`, as its manifest.json tells: https://github.com/moby/docker-image-spec,
// v1.2.
func (i *Image) openDocker(s store, image tarball.Descriptor) error {
	config, err := document(s, image.Config)
	if err == nil {
		err = i.setConfig(config)
	}
	if err != nil {
		return err
	}
	var layers []layer
	for _, name := range image.Layers {
		r, err := s.open(name)
		if err != nil {
			return fmt.Errorf("layer %.100s: %w", name, err)
		}
		layers = append(layers, layer{stored: r, size: r.Size()})
	}
	return i.setLayers(layers)
}

// openOCI reads the index.json of an OCI image layout: https://github.com/opencontainers/image-spec, image-layout.md.
func (i *Image) openOCI(s store, text []byte) error {
	all, err := parseIndex(text)
	if err == nil {
		all, err = i.pickOCI(all)
	}
	if err != nil {
		return err
	}
	manifest, _, err := choose(all, func(d v1.Descriptor) ([]byte, error) { return blob(s, d) })
	if err != nil {
		return err
	}
	config, err := blob(s, manifest.Config)
	if err == nil {
		err = i.setConfig(config)
	}
	if err != nil {
		return err
	}
	var layers []layer
	for _, d := range manifest.Layers {
		r, err := s.open(blobName(d))
		if err != nil {
			return fmt.Errorf("layer %s: %w", d.Digest, err)
		}
		layers = append(layers, layer{stored: r, size: r.Size()})
	}
	return i.setLayers(layers)
}

func blobName(d v1.Descriptor) string { return "blobs/" + d.Digest.Algorithm + "/" + d.Digest.Hex }

// blob reads a document and checks its digest.
func blob(s store, d v1.Descriptor) ([]byte, error) {
	text, err := document(s, blobName(d))
	if err != nil {
		return nil, err
	}
	return text, checkDigest(text, d.Digest)
}

func checkDigest(text []byte, want v1.Hash) error {
	got, _, err := v1.SHA256(bytes.NewReader(text))
	if err == nil && got != want {
		err = fmt.Errorf("%s is damaged: its digest is %s", want, got)
	}
	return err
}

// document reads a small file.
func document(s store, name string) ([]byte, error) {
	r, err := s.open(name)
	if err != nil {
		return nil, fmt.Errorf("%.100s: %w", name, err)
	}
	if r.Size() > maxDocument {
		return nil, fmt.Errorf("its %.100s has %d bytes, %d is the limit", name, r.Size(), maxDocument)
	}
	return io.ReadAll(r)
}

// folder is a store in a folder. It reads nothing outside of it.
type folder struct {
	root  *os.Root
	image *Image // closes the files
}

func (f *folder) open(name string) (*io.SectionReader, error) {
	info, err := f.root.Stat(name) // before opening it: a pipe would block
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("is no regular file")
	}
	file, err := f.root.Open(name)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	f.image.closers = append(f.image.closers, file)
	return io.NewSectionReader(file, 0, info.Size()), nil
}

// maxMembers is the most files that an image's archive may have; one for each layer and some more is what there are.
const maxMembers = 16 << 10

// tarStore is a store in a tar archive.
type tarStore map[string]member

type member struct {
	data *io.SectionReader
	link string // of a link: the name it stands for
}

// indexTar lists an archive's files. What is no tar archive has none.
func indexTar(data *io.SectionReader) (tarStore, error) {
	index := tarStore{}
	r := tar.NewReader(data)
	for {
		h, err := r.Next()
		switch {
		case errors.Is(err, io.EOF) || err != nil && len(index) == 0:
			return index, nil
		case err != nil:
			return nil, fmt.Errorf("the archive is damaged: %w", err)
		case len(index) == maxMembers:
			return nil, fmt.Errorf("the archive has more than %d files, which no image has", maxMembers)
		}
		name := inside(h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			offset, err := data.Seek(0, io.SeekCurrent)
			if err != nil {
				return nil, err
			}
			if h.Size > data.Size()-offset {
				return nil, fmt.Errorf("the archive is damaged: it ends inside %.100s", name)
			}
			index[name] = member{data: io.NewSectionReader(data, offset, h.Size)}
		case tar.TypeSymlink:
			index[name] = member{link: inside(path.Join(path.Dir(name), h.Linkname))}
		case tar.TypeLink:
			index[name] = member{link: inside(h.Linkname)}
		}
	}
}

// inside makes a name of an archive relative to its root, which it cannot leave.
func inside(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

// maxLinks is how many links in a row are followed (MAXSYMLINKS in linux/namei.h).
const maxLinks = 40

func (s tarStore) open(name string) (*io.SectionReader, error) {
	name = inside(name)
	for range maxLinks {
		m, ok := s[name]
		switch {
		case !ok:
			return nil, fs.ErrNotExist
		case m.data != nil:
			return io.NewSectionReader(m.data, 0, m.data.Size()), nil
		}
		name = m.link
	}
	return nil, errors.New("is a link to itself")
}

// parseIndex returns what an index lists.
func parseIndex(text []byte) ([]v1.Descriptor, error) {
	index, err := v1.ParseIndexManifest(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("its index cannot be read: %w", err)
	}
	return index.Manifests, nil
}

// choose finds the image for linux/amd64 among what an index lists, also in further indexes.
func choose(all []v1.Descriptor, fetch func(v1.Descriptor) ([]byte, error)) (*v1.Manifest, v1.Descriptor, error) {
	const maxDepth = 4
	var d v1.Descriptor
	for range maxDepth {
		var err error
		if d, err = chooseOne(all); err != nil {
			return nil, d, err
		}
		text, err := fetch(d)
		if err != nil {
			return nil, d, err
		}
		if d.MediaType.IsIndex() {
			if all, err = parseIndex(text); err != nil {
				return nil, d, err
			}
			continue
		}
		manifest, err := v1.ParseManifest(bytes.NewReader(text))
		if err != nil {
			return nil, d, fmt.Errorf("its manifest cannot be read: %w", err)
		}
		return manifest, d, nil
	}
	return nil, d, errors.New("its index is nested too deep")
}

// chooseOne returns the image or index for linux/amd64: the first that says so, else the only one that says nothing.
func chooseOne(all []v1.Descriptor) (v1.Descriptor, error) {
	var silent []v1.Descriptor
	var others []string
	for _, d := range all {
		switch p := d.Platform; {
		case d.MediaType != "" && !d.MediaType.IsImage() && !d.MediaType.IsIndex():
		case p == nil || p.OS == "" && p.Architecture == "":
			if !slices.ContainsFunc(silent, func(o v1.Descriptor) bool { return o.Digest == d.Digest }) { // one with two names
				silent = append(silent, d)
			}
		case p.OS == "linux" && p.Architecture == "amd64":
			return d, nil
		case p.OS != "unknown": // as attestations of provenance have
			others = append(others, p.OS+"/"+p.Architecture)
		}
	}
	switch {
	case len(silent) == 1:
		return silent[0], nil
	case len(silent) > 1:
		return v1.Descriptor{}, fmt.Errorf("it holds %d images, none of which says that it is for linux/amd64: keep one alone", len(silent))
	case len(others) == 0:
		return v1.Descriptor{}, errors.New("it holds no image")
	}
	return v1.Descriptor{}, fmt.Errorf("it is for %.200s, enclaves here are linux/amd64: build or pull it with --platform linux/amd64",
		strings.Join(others, ", "))
}
