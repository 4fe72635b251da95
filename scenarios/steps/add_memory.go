package steps

import (
	"cmp"
	"context"
	"fmt"
	"io"

	"github.com/nesim/nesim/scenarios"
	"github.com/nesim/nesim/sim/nedriver"
)

var addMemoryStep = kind[AddMemory]("add_memory", "map huge pages, load an image into them, NE_SET_USER_MEMORY_REGION")

// AddMemory gives an enclave memory, with an image in it if one is named.
type AddMemory struct {
	Enclave    string          `yaml:"enclave" required:"true"`
	Size       scenarios.Size  `yaml:"size" doc:"such as 256M (default: that of the memory used again)"`
	PageSize   scenarios.Size  `yaml:"page_size" doc:"4K, 64K, 2M (default) or 1G"`
	Image      string          `yaml:"image" doc:"hello, the name of a built image, a file, or none (default)"`
	Corrupt    *scenarios.Size `yaml:"corrupt" doc:"change the byte at this offset of the loaded image"`
	Contiguous uint64          `yaml:"contiguous_pages" doc:"physically contiguous pages before a hole (default: all)"`
	Node       int             `yaml:"node" doc:"NUMA node of the pages"`
	Process    string          `yaml:"process" doc:"the process that maps the memory (default: the enclave's)"`
	As         string          `yaml:"as" doc:"name of the memory"`
	Again      string          `yaml:"again" doc:"use the memory of this name instead of mapping more"`
	Shift      scenarios.Size  `yaml:"shift" doc:"offset of the region in the memory, in bytes"`
	Flags      uint64          `yaml:"flags" doc:"flags of the region (default NE_DEFAULT_MEMORY_REGION)"`
}

// Check implements [scenarios.Action].
func (s *AddMemory) Check(c *scenarios.Checker) {
	c.Uses(scenarios.Enclave, s.Enclave)
	c.Uses(scenarios.Memory, s.Again)
	if s.Size == 0 && s.Again == "" {
		c.Fail(`"size" is missing`)
	}
	c.Makes(scenarios.Memory, s.As)
	c.Makes(scenarios.Process, s.Process)
}

// Do implements [Action].
func (s *AddMemory) Do(ctx context.Context, w *World, b Branch) error {
	e, err := w.enclave(s.Enclave)
	if err != nil {
		return err
	}
	memory, err := s.memory(ctx, w, e)
	if err != nil {
		return err
	}
	size := cmp.Or(uint64(s.Size), memory.Size())
	region := nedriver.UserMemoryRegion{Flags: s.Flags, MemorySize: size, UserspaceAddr: memory.Addr() + uint64(s.Shift)}
	return w.call(b, e.name, fmt.Sprintf("NE_SET_USER_MEMORY_REGION of %d KiB", size>>10), func() (string, error) {
		err := e.file.SetUserMemoryRegion(region)
		if err == nil {
			e.memory += size
		}
		return "", err
	})
}

// memory maps the step's memory, with its image, or finds the memory that an earlier step has mapped.
func (s *AddMemory) memory(ctx context.Context, w *World, e *enclave) (*nedriver.Mapping, error) {
	if s.Again != "" {
		return find(w, w.memories, scenarios.Memory, s.Again)
	}
	process := e.process
	if s.Process != "" {
		process = w.process(s.Process)
	}
	memory, err := process.Mmap(nedriver.MapSpec{
		Size: uint64(s.Size), PageSize: uint64(s.PageSize), Node: s.Node, ContiguousPages: s.Contiguous,
	})
	if err != nil {
		return nil, fmt.Errorf("map %d KiB: %w", s.Size>>10, err)
	}
	if s.As != "" {
		keep(w, w.memories, s.As, memory)
	}
	if s.Image == "" || s.Image == noImage {
		return memory, nil
	}
	return memory, s.load(ctx, w, e, memory)
}

// load copies the image to where the driver says that images begin.
func (s *AddMemory) load(ctx context.Context, w *World, e *enclave, memory *nedriver.Mapping) error {
	image, size, err := w.image(ctx, s.Image)
	if err != nil {
		return fmt.Errorf("image %s: %w", s.Image, err)
	}
	defer image.Close()
	at := io.NewOffsetWriter(memory, nedriver.EIFLoadOffset)
	if _, err := io.Copy(at, io.NewSectionReader(image, 0, size)); err != nil {
		return fmt.Errorf("load the image: %w", err)
	}
	e.image = uint64(size)
	if s.Corrupt == nil {
		return nil
	}
	var old [1]byte
	off := int64(nedriver.EIFLoadOffset) + int64(*s.Corrupt)
	if _, err := memory.ReadAt(old[:], off); err != nil {
		return fmt.Errorf("corrupt the image at %d: %w", *s.Corrupt, err)
	}
	_, err = memory.WriteAt([]byte{old[0] ^ 0xff}, off)
	return err
}
