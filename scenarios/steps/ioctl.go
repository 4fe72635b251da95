package steps

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/nesim/nesim/internal/suggest"
	"github.com/nesim/nesim/scenarios"
	"github.com/nesim/nesim/sim/nedriver"
)

var ioctlStep = kind[Ioctl]("ioctl", "any ioctl of the NE driver, valid or not")

// Ioctl does an ioctl as a program does it, with an address in its memory.
type Ioctl struct {
	Enclave string            `yaml:"enclave" doc:"the enclave whose descriptor to use (default: the device file)"`
	Process string            `yaml:"process" doc:"the process that opens the device file"`
	Number  string            `yaml:"number" doc:"such as NE_ADD_VCPU, or a number" required:"true"`
	Fields  map[string]uint64 `yaml:"fields" doc:"fields of the ioctl's structure, by the header's names"`
	BadAddr bool              `yaml:"bad_address" doc:"pass an address that is not mapped"`
}

// unmapped is an address at which no process has memory.
const unmapped = 0x1000

// ioctls are the NE driver's, with the fields of their structures. Source: include/uapi/linux/nitro_enclaves.h.
var ioctls = map[string]struct {
	number uint32
	parts  []part
}{
	"NE_CREATE_VM":              {nedriver.NECreateVM, []part{{"slot_uid", 8}}},
	"NE_ADD_VCPU":               {nedriver.NEAddVCPU, []part{{"vcpu_id", 4}}},
	"NE_GET_IMAGE_LOAD_INFO":    {nedriver.NEGetImageLoadInfo, []part{{"flags", 8}, {"memory_offset", 8}}},
	"NE_SET_USER_MEMORY_REGION": {nedriver.NESetUserMemoryRegion, []part{{"flags", 8}, {"memory_size", 8}, {"userspace_addr", 8}}},
	"NE_START_ENCLAVE":          {nedriver.NEStartEnclave, []part{{"enclave_cid", 8}, {"flags", 8}}},
}

// Check implements [scenarios.Action].
func (s *Ioctl) Check(c *scenarios.Checker) {
	c.Uses(scenarios.Enclave, s.Enclave)
	if _, _, err := s.encode(); err != nil {
		c.Fail("%v", err)
	}
	c.Makes(scenarios.Process, s.Process)
}

// encode returns the ioctl's number, and its structure in little-endian order.
func (s *Ioctl) encode() (number uint32, data []byte, err error) {
	command, known := ioctls[s.Number]
	if !known {
		n, err := strconv.ParseUint(s.Number, 0, 32)
		if err != nil {
			return 0, nil, unknownIoctl(s.Number)
		}
		command.number = uint32(n)
	}
	values, err := arrange(command.parts, s.Fields)
	if err != nil {
		return 0, nil, err
	}
	for n, part := range command.parts {
		data = append(data, binary.LittleEndian.AppendUint64(nil, values[n])[:part.size]...)
	}
	return command.number, data, nil
}

func unknownIoctl(name string) error {
	names := slices.Sorted(maps.Keys(ioctls))
	if near := suggest.Nearest(name, names); near != "" {
		return fmt.Errorf("unknown ioctl %q: did you mean %s?", name, near)
	}
	return fmt.Errorf("unknown ioctl %q: give %s, or a number", name, strings.Join(names, ", "))
}

// Do implements [Action].
func (s *Ioctl) Do(_ context.Context, w *World, b Branch) error {
	process, lane := w.process(s.Process), "parent"
	var e *enclave
	if s.Enclave != "" {
		var err error
		if e, err = w.enclave(s.Enclave); err != nil {
			return err
		}
		process, lane = e.process, e.name
	}
	number, data, err := s.encode()
	if err != nil {
		return err
	}
	arg, unmap := uint64(unmapped), func() {}
	if !s.BadAddr {
		if arg, unmap, err = argument(process, data); err != nil {
			return err
		}
	}
	defer unmap()
	return w.call(b, lane, s.Number, func() (string, error) {
		if e != nil {
			return "", e.file.Ioctl(number, arg)
		}
		made, err := w.Stage.Driver.Open(process.Process).Ioctl(number, arg)
		if err == nil {
			err = made.Close()
		}
		return "", err
	})
}

// argument puts the structure of an ioctl into memory of the process.
func argument(process *process, data []byte) (addr uint64, unmap func(), err error) {
	memory, err := process.Mmap(nedriver.MapSpec{Size: nedriver.PageSize4K, PageSize: nedriver.PageSize4K})
	if err != nil {
		return 0, nil, err
	}
	if _, err := memory.WriteAt(data, 0); err != nil {
		memory.Close()
		return 0, nil, err
	}
	return memory.Addr(), func() { memory.Close() }, nil
}
