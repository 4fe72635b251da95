package eif

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Sizes and numbers of the format, from the specification's "EifHeader".
const (
	HeaderSize        = 548 // bytes of the file's header
	SectionHeaderSize = 12  // bytes of the header before each section's data
	MaxSections       = 32  // MAX_NUM_SECTIONS
	MinVersion        = 2   // the first version ever published
	CurrentVersion    = 4   // CURRENT_VERSION

	minSections = 2 // a kernel and a command line
	crcSize     = 4 // the CRC32 is the header's last field and the only bytes it does not cover
)

// Magic is how every EIF begins.
var Magic = [4]byte{'.', 'e', 'i', 'f'}

// ErrFormat is wrapped by every error that says the bytes are not a well-formed EIF, as opposed to a failure to read
// them.
var ErrFormat = errors.New("not a valid EIF")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrFormat, fmt.Errorf(format, args...))
}

// Header is the header as it lies in the file, field by field, big-endian. The tables' entries past NumSections, and
// Reserved and Unused, mean nothing but are covered by the CRC.
type Header struct {
	Magic          [4]byte
	Version        uint16
	Flags          uint16 // bit 0: FlagARM64; the others are reserved
	DefaultMemory  uint64 // bytes; nobody uses it
	DefaultCPUs    uint64 // nobody uses it
	Reserved       uint16
	NumSections    uint16
	SectionOffsets [MaxSections]uint64 // of the section headers, from the start of the file
	SectionSizes   [MaxSections]uint64 // of the sections' data, without their headers
	Unused         uint32
	CRC32          uint32 // IEEE, of all the file but this field
}

// FlagARM64 is EIF_HDR_ARCH_ARM64.
const FlagARM64 = 1

// Arch is the processor architecture an image is for, by the name that eif_build gives it.
type Arch string

const (
	ArchX86_64  Arch = "x86_64"
	ArchAArch64 Arch = "aarch64"
)

// Arch returns the architecture that the flags name.
func (h *Header) Arch() Arch {
	if h.Flags&FlagARM64 != 0 {
		return ArchAArch64
	}
	return ArchX86_64
}

func (a Arch) flags() (uint16, error) {
	switch a {
	case ArchX86_64, "":
		return 0, nil
	case ArchAArch64:
		return FlagARM64, nil
	}
	return 0, fmt.Errorf("architecture %q is not %s or %s", string(a), ArchX86_64, ArchAArch64)
}

// bytes returns the header as it is written to the file.
func (h *Header) bytes() []byte {
	b, err := binary.Append(make([]byte, 0, HeaderSize), binary.BigEndian, h)
	if err != nil {
		panic(err) // only for a type without a fixed size
	}
	return b
}

// parseHeader decodes a header and checks what can be checked without the rest of the file. b has HeaderSize bytes.
func parseHeader(b []byte) (Header, error) {
	var h Header
	if _, err := binary.Decode(b, binary.BigEndian, &h); err != nil {
		return h, malformed("the header cannot be decoded: %w", err)
	}
	switch {
	case h.Magic != Magic:
		return h, malformed("it begins with %q where an EIF begins with %q", h.Magic[:], Magic[:])
	case h.Version < MinVersion || h.Version > CurrentVersion:
		return h, malformed("version %d is not supported, only %d to %d are", h.Version, MinVersion, CurrentVersion)
	case h.NumSections < minSections:
		return h, malformed("%d sections are too few, a kernel and a command line are needed", h.NumSections)
	case h.NumSections > MaxSections:
		return h, malformed("%d sections are too many, %d is the limit", h.NumSections, MaxSections)
	}
	return h, nil
}
