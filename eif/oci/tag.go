package oci

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Annotations of an OCI index's descriptors that name images: the image specification's annotations.md, and
// containerd's images/annotations.go, which Docker writes beside it.
const (
	refNameAnnotation   = "org.opencontainers.image.ref.name"
	imageNameAnnotation = "io.containerd.image.name"
)

// splitTag returns the paths and tags that FILE:TAG may mean, the shortest path first: tags have colons too.
func splitTag(name string) (splits [][2]string) {
	for at := 1; at < len(name)-1; at++ {
		if name[at] == ':' {
			splits = append(splits, [2]string{name[:at], name[at+1:]})
		}
	}
	return splits
}

// named reports how well one of an image's names answers to what was asked for: 0 for not at all, 1 where only the tag is
// the same, 2 where the names are.
func named(asked string, names []string) (quality int) {
	for _, n := range names {
		switch {
		case n == asked || canonical(n) == canonical(asked):
			return 2
		case strings.HasSuffix(n, ":"+asked):
			quality = 1
		}
	}
	return quality
}

// canonical returns an image's name in full: docker.io/library/app:latest for app.
func canonical(image string) string {
	ref, err := name.ParseReference(image)
	if err != nil {
		return image
	}
	return ref.Name()
}

// pick returns the one image that tag asks for, of several with their names; any where tag is "" and there is but one.
// same reports that two are one image.
func pick[T any](path, tag string, all []T, names func(T) []string, same func(a, b T) bool) (T, error) {
	best, found := 0, []T(nil)
	for _, one := range all {
		quality := 2
		if tag != "" {
			quality = named(tag, names(one))
		}
		if quality == 0 || quality < best || slices.ContainsFunc(found, func(o T) bool { return quality == best && same(o, one) }) {
			continue
		}
		if quality > best {
			best, found = quality, nil
		}
		found = append(found, one)
	}
	if len(found) == 1 {
		return found[0], nil
	}
	var listed []string
	for _, one := range all {
		listed = append(listed, names(one)...)
	}
	var none T
	switch {
	case len(all) == 0:
		return none, fmt.Errorf("it holds no image")
	case len(listed) == 0 && tag == "":
		return none, fmt.Errorf("it holds %d images without a name to choose by: save one alone", len(all))
	case len(listed) == 0:
		return none, fmt.Errorf("it holds no image %.100s: its images have no names; leave the tag out", tag)
	case len(found) == 0:
		return none, fmt.Errorf("it holds no image %.100s, but %s", tag, listing(listed))
	}
	return none, fmt.Errorf("it holds %d images, %s: name one, as in %s:%s", len(found), listing(listed), path, listed[0])
}

// listing joins a few names.
func listing(names []string) string {
	const enough = 10
	if len(names) > enough {
		return fmt.Sprintf("%.100s and %d more", strings.Join(names[:enough], ", "), len(names)-enough)
	}
	return fmt.Sprintf("%.400s", strings.Join(names, ", "))
}

// pickDocker picks an image of a manifest.json.
func (i *Image) pickDocker(images tarball.Manifest) (tarball.Descriptor, error) {
	return pick(i.Path, i.tag, images,
		func(d tarball.Descriptor) []string { return d.RepoTags },
		func(a, b tarball.Descriptor) bool { return a.Config == b.Config && slices.Equal(a.Layers, b.Layers) })
}

// pickOCI reduces an index to the manifests of the image that is asked for. Manifests without names are one image's,
// for several platforms.
func (i *Image) pickOCI(all []v1.Descriptor) ([]v1.Descriptor, error) {
	if i.tag == "" && !slices.ContainsFunc(all, func(d v1.Descriptor) bool { return len(ociNames(d)) > 0 }) {
		return all, nil
	}
	var images [][]v1.Descriptor // by their names
	for _, d := range all {
		at := slices.IndexFunc(images, func(o []v1.Descriptor) bool { return slices.Equal(ociNames(o[0]), ociNames(d)) })
		if at < 0 {
			images = append(images, []v1.Descriptor{d})
		} else {
			images[at] = append(images[at], d)
		}
	}
	return pick(i.Path, i.tag, images,
		func(d []v1.Descriptor) []string { return ociNames(d[0]) },
		func(a, b []v1.Descriptor) bool {
			return slices.EqualFunc(a, b, func(a, b v1.Descriptor) bool { return a.Digest == b.Digest })
		})
}

// ociNames returns the names that an index's descriptor has.
func ociNames(d v1.Descriptor) (names []string) {
	full, short := d.Annotations[imageNameAnnotation], d.Annotations[refNameAnnotation]
	if full != "" {
		return []string{full}
	}
	if short != "" {
		return []string{short}
	}
	return nil
}
