package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// openReference opens the image of a name: from the local engine where that has it, as nitro-cli does, else from its
// registry.
func (i *Image) openReference(ctx context.Context, image string) error {
	ref, err := name.ParseReference(image)
	if err != nil {
		return errors.New("it is no file here, and no name that an image can have")
	}
	found, engineErr := i.openEngine(ctx, image)
	if found {
		return engineErr
	}
	if looksLikeArchive(image) || slices.ContainsFunc(splitTag(image), func(s [2]string) bool { return looksLikeArchive(s[0]) }) {
		return fmt.Errorf("there is no such file, and %w", engineErr)
	}
	i.options.Note(fmt.Sprintf("%v: asking the registry %s", engineErr, ref.Context().RegistryStr()))
	if err := i.openRegistry(ctx, ref); err != nil {
		return fmt.Errorf("%w; and registry %s: %w", engineErr, ref.Context().RegistryStr(), err)
	}
	return nil
}

// openRegistry opens an image in its registry, with the credentials of Docker's or Podman's login.
func (i *Image) openRegistry(ctx context.Context, ref name.Reference) error {
	options := []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)}
	found, err := remote.Get(ref, options...)
	if err != nil {
		return err
	}
	digest := found.Digest
	if found.MediaType.IsIndex() {
		all, err := parseIndex(found.Manifest)
		if err != nil {
			return err
		}
		_, chosen, err := choose(all, func(d v1.Descriptor) ([]byte, error) {
			if d.Size > maxDocument {
				return nil, fmt.Errorf("%s has %d bytes, %d is the limit", d.Digest, d.Size, maxDocument)
			}
			one, err := remote.Get(ref.Context().Digest(d.Digest.String()), options...)
			if err != nil {
				return nil, err
			}
			return one.Manifest, nil
		})
		if err != nil {
			return err
		}
		digest = chosen.Digest
	}
	image, err := remote.Image(ref.Context().Digest(digest.String()), options...)
	if err != nil {
		return err
	}
	return i.setRemote(image)
}

func (i *Image) setRemote(image v1.Image) error {
	i.Source = Registry
	manifest, err := image.Manifest()
	if err != nil {
		return err
	}
	if manifest.Config.Size > maxDocument {
		return fmt.Errorf("its configuration has %d bytes, %d is the limit", manifest.Config.Size, maxDocument)
	}
	config, err := image.RawConfigFile()
	if err == nil {
		err = i.setConfig(config)
	}
	if err != nil {
		return err
	}
	var layers []layer
	for _, d := range manifest.Layers {
		layers = append(layers, layer{size: d.Size, fetch: func() (io.ReadCloser, error) {
			l, err := image.LayerByDigest(d.Digest)
			if err != nil {
				return nil, err
			}
			return l.Compressed()
		}})
	}
	return i.setLayers(layers)
}
