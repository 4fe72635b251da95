package inspect

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/nesim/nesim/eif"
)

// KernelFormat is the form that a kernel's file has.
type KernelFormat string

const (
	BzImage       KernelFormat = "bzImage"     // Documentation/arch/x86/boot.rst
	Vmlinux       KernelFormat = "ELF vmlinux" // with a PVH entry point: the note XEN_ELFNOTE_PHYS32_ENTRY
	ARM64Image    KernelFormat = "arm64 Image" // Documentation/arch/arm64/booting.rst
	UnknownKernel KernelFormat = "unknown"
)

// Kernel describes a kernel.
type Kernel struct {
	Format  KernelFormat
	Arch    eif.Arch // "" where it is not known
	Release string   // as `uname -r` says, where the file tells
	PVH     bool     // an ELF file has a PVH entry point, which QEMU starts it by

	// End is where the memory ends that the kernel takes as it starts, and RamdiskMax the highest address that its ramdisk
	// may have, in bytes; 0 where the file does not say.
	End        uint64 `json:"-"`
	RamdiskMax uint64 `json:"-"`
}

// Offsets and values of the two boot protocols, little endian.
const (
	setupMagicOffset   = 0x202 // "HdrS"
	setupVersionOffset = 0x20e // where the version's text is, less setupVersionBase
	setupVersionBase   = 0x200
	arm64MagicOffset   = 56 // "ARM\x64"

	notePVH     = 18 // XEN_ELFNOTE_PHYS32_ENTRY in xen/interface/elfnote.h; its owner is "Xen"
	maxNotes    = 1 << 20
	maxSegments = 128
)

// IdentifyKernel reports what the kernel in r's first size bytes is. What cannot be read is of unknown format.
func IdentifyKernel(r io.ReaderAt, size int64) Kernel {
	first := make([]byte, min(size, setupVersionOffset+2))
	if n, err := r.ReadAt(first, 0); n < len(first) && err != nil {
		return Kernel{Format: UnknownKernel}
	}
	at := func(offset int, magic string) bool {
		return len(first) >= offset+len(magic) && string(first[offset:offset+len(magic)]) == magic
	}
	switch {
	case at(setupMagicOffset, "HdrS"):
		k := Kernel{Format: BzImage, Arch: eif.ArchX86_64, Release: setupRelease(r, first)}
		k.End, k.RamdiskMax = setupLayout(r)
		return k
	case at(0, elf.ELFMAG):
		return identifyELF(io.NewSectionReader(r, 0, size))
	case at(arm64MagicOffset, "ARM\x64"):
		return Kernel{Format: ARM64Image, Arch: eif.ArchAArch64}
	}
	return Kernel{Format: UnknownKernel}
}

// setupRelease reads a bzImage's version, whose first word is the release.
func setupRelease(r io.ReaderAt, first []byte) string {
	if len(first) < setupVersionOffset+2 {
		return ""
	}
	pointer := binary.LittleEndian.Uint16(first[setupVersionOffset:])
	var text [256]byte
	n, _ := r.ReadAt(text[:], setupVersionBase+int64(pointer))
	version, _, whole := bytes.Cut(text[:n], []byte{0})
	words := strings.Fields(string(version))
	if pointer == 0 || !whole || len(words) == 0 {
		return ""
	}
	return words[0]
}

// setupLayout reads where a bzImage unpacks itself: it needs initSize bytes from prefAddress on, as QEMU's firmware loads it
// below that.
func setupLayout(r io.ReaderAt) (end, ramdiskMax uint64) {
	var header [headerEnd]byte
	if _, err := r.ReadAt(header[:], 0); err != nil {
		return 0, 0
	}
	if version := binary.LittleEndian.Uint16(header[setupProtocolOffset:]); version < layoutProtocol {
		return 0, 0
	}
	address := binary.LittleEndian.Uint64(header[prefAddressOffset:])
	size := uint64(binary.LittleEndian.Uint32(header[initSizeOffset:]))
	return min(address, math.MaxUint32) + size, uint64(binary.LittleEndian.Uint32(header[ramdiskMaxOffset:]))
}

func identifyELF(r *io.SectionReader) Kernel {
	k := Kernel{Format: Vmlinux}
	f, err := elf.NewFile(r)
	if err != nil {
		return Kernel{Format: UnknownKernel}
	}
	switch f.Machine {
	case elf.EM_X86_64:
		k.Arch = eif.ArchX86_64
	case elf.EM_AARCH64:
		k.Arch = eif.ArchAArch64
	}
	for n, p := range f.Progs {
		if p.Type == elf.PT_LOAD {
			k.End = max(k.End, min(p.Paddr, math.MaxUint32)+min(p.Memsz, math.MaxUint32))
		}
		if p.Type == elf.PT_NOTE && p.Filesz <= maxNotes && n < maxSegments {
			notes := make([]byte, p.Filesz)
			if _, err := p.ReadAt(notes, 0); err == nil {
				k.PVH = k.PVH || hasPVH(notes, f.ByteOrder, p.Align)
			}
		}
	}
	return k
}

// hasPVH looks for the PVH note among notes: each has the sizes of its name and its data, and its type, 32 bits each,
// then the name and the data, both padded.
func hasPVH(notes []byte, order binary.ByteOrder, align uint64) bool {
	if align != 8 {
		align = 4
	}
	padded := func(n uint32) uint64 { return (uint64(n) + align - 1) / align * align }
	for len(notes) >= 12 {
		name, data, kind := order.Uint32(notes), order.Uint32(notes[4:]), order.Uint32(notes[8:])
		notes = notes[12:]
		if uint64(len(notes)) < uint64(name) {
			return false
		}
		if kind == notePVH && string(bytes.TrimRight(notes[:name], "\x00")) == "Xen" {
			return true
		}
		size := padded(name) + padded(data)
		if size > uint64(len(notes)) {
			return false
		}
		notes = notes[size:]
	}
	return false
}

// CheckKernel says why a kernel, of an image for arch, cannot run here, in one line, or returns nil.
func CheckKernel(k Kernel, arch eif.Arch) error {
	switch {
	case arch != eif.ArchX86_64:
		return fmt.Errorf("the image is for %s, enclaves here are %s: build it for that", arch, eif.ArchX86_64)
	case k.Arch != "" && k.Arch != arch:
		return fmt.Errorf("the image is for %s and its kernel, an %s, for %s: build it with a kernel for %s", arch, k.Format, k.Arch, arch)
	case k.Format == UnknownKernel:
		return errors.New("the kernel is neither a bzImage nor an ELF vmlinux, which are what can be started")
	case k.Format == Vmlinux && k.Arch == "":
		return errors.New("the kernel is an ELF file for another processor than x86_64")
	case k.Format == Vmlinux && !k.PVH:
		return errors.New("the kernel is an ELF vmlinux without a PVH entry point: build it with CONFIG_PVH, or use its bzImage")
	}
	return nil
}
