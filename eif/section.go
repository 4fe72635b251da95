package eif

import (
	"encoding/binary"
	"fmt"
)

// SectionKind says what a section holds: EifSectionType.
type SectionKind uint16

const (
	SectionInvalid SectionKind = iota
	SectionKernel
	SectionCmdline
	SectionRamdisk
	SectionSignature // since version 3
	SectionMetadata  // since version 4, and there mandatory
)

func (k SectionKind) String() string {
	switch k {
	case SectionInvalid:
		return "invalid"
	case SectionKernel:
		return "kernel"
	case SectionCmdline:
		return "command line"
	case SectionRamdisk:
		return "ramdisk"
	case SectionSignature:
		return "signature"
	case SectionMetadata:
		return "metadata"
	}
	return fmt.Sprintf("unknown kind %d", uint16(k))
}

// Largest data of the sections that are read into memory, in bytes.
const (
	// MaxCmdline is one less than Linux's COMMAND_LINE_SIZE on x86_64 and arm64, which counts a final zero byte.
	MaxCmdline = 2047
	// MaxSignature is the specification's SIGNATURE_MAX_SIZE.
	MaxSignature = 32768
	// MaxMetadata is ours: the specification has none. What `docker inspect` says of an image is most of it.
	MaxMetadata = 1 << 20
)

// limit returns the most bytes that a section of kind k may hold, or 0 where only the file's size limits it.
func (k SectionKind) limit() int64 {
	switch k {
	case SectionCmdline:
		return MaxCmdline
	case SectionSignature:
		return MaxSignature
	case SectionMetadata:
		return MaxMetadata
	}
	return 0
}

// Section is one section of an image.
type Section struct {
	Kind   SectionKind
	Flags  uint16 // reserved
	Offset int64  // of the data in the file; the section's header lies before it
	Size   int64  // of the data, in bytes
}

// sectionHeader is EifSectionHeader as it lies in the file.
type sectionHeader struct {
	Kind  SectionKind
	Flags uint16
	Size  uint64
}

func (s Section) header() sectionHeader {
	return sectionHeader{Kind: s.Kind, Flags: s.Flags, Size: uint64(s.Size)}
}

func (h sectionHeader) bytes() []byte {
	b := make([]byte, 0, SectionHeaderSize)
	b = binary.BigEndian.AppendUint16(b, uint16(h.Kind))
	b = binary.BigEndian.AppendUint16(b, h.Flags)
	return binary.BigEndian.AppendUint64(b, h.Size)
}

func parseSectionHeader(b []byte) sectionHeader {
	return sectionHeader{
		Kind:  SectionKind(binary.BigEndian.Uint16(b)),
		Flags: binary.BigEndian.Uint16(b[2:]),
		Size:  binary.BigEndian.Uint64(b[4:]),
	}
}
