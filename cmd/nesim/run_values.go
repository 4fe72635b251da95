package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"unicode"

	"github.com/nesim/nesim/sim/errcode"
	"github.com/nesim/nesim/sim/instance"
)

// cpuCount is the value of --cpu-count.
type cpuCount int

func (c *cpuCount) Type() string   { return "N" }
func (c *cpuCount) String() string { return "" }

func (c *cpuCount) Set(text string) error {
	n, err := strconv.ParseUint(text, 10, 31)
	*c = cpuCount(n)
	if err != nil && strings.HasPrefix(text, "-") {
		return errors.New("must be positive: give 2, or another number of whole cores")
	}
	return whole(err)
}

// cpuIDs is the value of --cpu-ids.
type cpuIDs []uint32

func (c *cpuIDs) Type() string   { return "ID..." }
func (c *cpuIDs) String() string { return "" }

func (c *cpuIDs) Set(text string) error {
	*c = nil
	for word := range strings.SplitSeq(text, ",") {
		id, err := strconv.ParseUint(strings.TrimSpace(word), 10, 32)
		if err != nil {
			return fmt.Errorf("has %q, which is not the ID of a CPU", word)
		}
		*c = append(*c, uint32(id))
	}
	return nil
}

// memoryMiB is the value of --memory: a number of MiB, or one with a unit. nitro-cli takes M, G and T, for MiB, GiB and
// TiB; their longer names mean the same here.
type memoryMiB uint64

func (m *memoryMiB) Type() string   { return "SIZE" }
func (m *memoryMiB) String() string { return "" }

// memoryUnits are the units of --memory in MiB, by their upper-case names.
var memoryUnits = map[string]uint64{
	"": 1, "M": 1, "MB": 1, "MIB": 1, "G": 1 << 10, "GB": 1 << 10, "GIB": 1 << 10, "T": 1 << 20, "TB": 1 << 20, "TIB": 1 << 20,
}

func (m *memoryMiB) Set(text string) error {
	number := strings.TrimRightFunc(text, unicode.IsLetter)
	unit, known := memoryUnits[strings.ToUpper(text[len(number):])]
	if !known {
		return fmt.Errorf("has the unknown unit %q: use M, G or T, as in 512M or 2GiB", text[len(number):])
	}
	n, err := strconv.ParseUint(strings.TrimRight(number, " "), 10, 64)
	if err != nil {
		return whole(err)
	}
	if n > math.MaxUint64/unit {
		return errors.New("is too large a number")
	}
	*m = memoryMiB(n * unit)
	return nil
}

// whole says what is wrong with a number that strconv has refused.
func whole(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, strconv.ErrRange):
		return errors.New("is too large a number")
	}
	return errors.New("is not a whole number")
}

// runConfig is the object in the file of --config: RunEnclavesArgs of nitro-cli's commands_parser.rs.
type runConfig struct {
	EIFPath   *string   `json:"eif_path"`
	CID       *uint64   `json:"enclave_cid"`
	MemoryMiB *uint64   `json:"memory_mib"`
	CPUIDs    *[]uint32 `json:"cpu_ids"`
	Debug     bool      `json:"debug_mode"`
	Attach    bool      `json:"attach_console"`
	CPUCount  *uint32   `json:"cpu_count"`
	Name      *string   `json:"enclave_name"`
}

const maxRunConfig = 1 << 20 // bytes

// readRunConfig reads the file of --config. Keys that are not known are passed over, as by nitro-cli.
func readRunConfig(path string, attach *bool) (instance.RunSpec, error) {
	f, err := os.Open(path)
	if err != nil {
		return instance.RunSpec{}, errcode.Wrap(errcode.FileOperationFailure, err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxRunConfig+1))
	if err != nil {
		return instance.RunSpec{}, errcode.Wrap(errcode.FileOperationFailure, err)
	}
	var c runConfig
	if err := c.parse(raw); err != nil {
		return instance.RunSpec{}, fmt.Errorf("%s: %w", path, err)
	}
	*attach = *attach || c.Attach
	return c.spec(), nil
}

func (c *runConfig) parse(raw []byte) error {
	if len(raw) > maxRunConfig {
		return errcode.New(errcode.Serde, "the configuration is longer than %d bytes", maxRunConfig)
	}
	if err := json.Unmarshal(raw, c); err != nil {
		if kind := (*json.UnmarshalTypeError)(nil); errors.As(err, &kind) {
			return errcode.New(errcode.Serde, "%s must not be a JSON %s", kind.Field, kind.Value)
		}
		return errcode.New(errcode.Serde, "not valid JSON: %w", err)
	}
	switch {
	case c.EIFPath == nil:
		return errcode.New(errcode.Serde, "eif_path is missing: set it to the path of the Enclave Image File")
	case c.MemoryMiB == nil:
		return errcode.New(errcode.Serde, "memory_mib is missing: set it to the memory of the enclave in MiB")
	case c.CPUCount == nil && c.CPUIDs == nil:
		return errcode.New(errcode.MissingArgument, "cpu_count and cpu_ids are missing: set one of them")
	case c.CPUCount != nil && c.CPUIDs != nil:
		return errcode.New(errcode.ConflictingArgument, "cpu_count and cpu_ids exclude each other: remove one")
	}
	return nil
}

func (c *runConfig) spec() (spec instance.RunSpec) {
	spec.EIFPath, spec.MemoryMiB, spec.Debug = *c.EIFPath, *c.MemoryMiB, c.Debug
	if c.CID != nil {
		spec.CID = *c.CID
	}
	if c.CPUCount != nil {
		spec.CPUCount = int(min(*c.CPUCount, math.MaxInt32))
	}
	if c.CPUIDs != nil {
		spec.CPUIDs = *c.CPUIDs
	}
	if c.Name != nil {
		spec.Name = *c.Name
	}
	return spec
}
