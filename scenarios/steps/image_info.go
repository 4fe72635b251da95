package steps

import (
	"context"
	"fmt"

	"github.com/nesim/nesim/scenarios"
	"github.com/nesim/nesim/sim/nedriver"
)

var imageInfoStep = kind[ImageInfo]("image_info", "NE_GET_IMAGE_LOAD_INFO")

// ImageInfo asks the driver where in an enclave's memory the image begins.
type ImageInfo struct {
	Enclave string  `yaml:"enclave" required:"true"`
	Flags   *uint64 `yaml:"flags" doc:"flags of the image (default NE_EIF_IMAGE)"`
	Offset  *uint64 `yaml:"offset" doc:"the expected offset, in bytes"`
}

// Check implements [scenarios.Action].
func (s *ImageInfo) Check(c *scenarios.Checker) { c.Uses(scenarios.Enclave, s.Enclave) }

// Do implements [Action].
func (s *ImageInfo) Do(_ context.Context, w *World, b Branch) error {
	e, err := w.enclave(s.Enclave)
	if err != nil {
		return err
	}
	flags := uint64(nedriver.NEEIFImage)
	if s.Flags != nil {
		flags = *s.Flags
	}
	var offset uint64
	err = w.call(b, e.name, "NE_GET_IMAGE_LOAD_INFO", func() (_ string, err error) {
		offset, err = e.file.GetImageLoadInfo(flags)
		return fmt.Sprint(offset), err
	})
	if err == nil && s.Offset != nil && *s.Offset != offset {
		return mismatch("the image begins at %d, not %d", offset, *s.Offset)
	}
	return err
}
