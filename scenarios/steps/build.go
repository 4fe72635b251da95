package steps

import (
	"cmp"
	"context"
	"fmt"

	"github.com/nesim/nesim/scenarios"
	"github.com/nesim/nesim/scenarios/stage"
	"github.com/nesim/nesim/scenarios/trace"
)

var buildStep = kind[Build]("build", "build an image")

// Build builds an image and gives it a name.
type Build struct {
	As      string `yaml:"as" doc:"name of the image" required:"true"`
	Rootfs  string `yaml:"rootfs" doc:"a folder, as build-enclave's --rootfs (default: the hello enclave's)"`
	Cmdline string `yaml:"cmdline" doc:"kernel command line (default: nesim's)"`
	Sign    string `yaml:"sign" doc:"sign with a valid or expired certificate, or with another key than the certificate's (default: unsigned)" enum:"valid,expired,forged"`
}

// Check implements [scenarios.Action].
func (s *Build) Check(c *scenarios.Checker) {
	if s.As == helloImage || s.As == noImage {
		c.Fail("image name %q is reserved: choose another", s.As)
	}
	c.Makes(scenarios.Image, s.As)
}

// Do implements [Action].
func (s *Build) Do(ctx context.Context, w *World, b Branch) error {
	spec := stage.ImageSpec{Cmdline: s.Cmdline, Signature: stage.Signature(s.Sign)}
	if s.Rootfs != "" {
		spec.Rootfs = w.path(s.Rootfs)
	}
	f, err := w.Stage.Build(stoppable{ctx, w.stop}, spec)
	if err != nil {
		return fmt.Errorf("build image %s: %w", s.As, err)
	}
	w.mu.Lock()
	before := w.images[s.As]
	w.images[s.As] = f
	w.mu.Unlock()
	if before != nil {
		before.Close()
	}
	w.Note(b, "parent", trace.Note, "image "+s.As+" is built")
	return nil
}

// stoppable is a context whose error is that of stop too: packing looks at it between files.
type stoppable struct {
	context.Context
	stop func() error
}

// Err implements context.Context.
func (s stoppable) Err() error { return cmp.Or(s.stop(), s.Context.Err()) }
