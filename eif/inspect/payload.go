package inspect

import (
	"bufio"
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	// deviceParameter is the kernel parameter that describes a virtio-mmio device: module_param_cb(device) in
	// drivers/virtio/virtio_mmio.c. A kernel holds the text if, and only if, it was built with
	// CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES and virtio_mmio is not a module.
	deviceParameter = "virtio_mmio.device"

	// maxKernel bounds what a compressed kernel is unpacked to, in bytes: several times what a distribution's kernel takes.
	maxKernel = 256 << 20
	// searchChunk is how much of a kernel is searched at a time, in bytes.
	searchChunk = 256 << 10
)

// The fields of the x86 boot protocol that lead to a bzImage's compressed kernel, and that say where it unpacks itself
// (Documentation/arch/x86/boot.rst), little endian. The protected-mode code begins after the boot sector and setupSects
// more sectors.
const (
	setupSectsOffset    = 0x1f1 // 8 bits; 0 means defaultSetupSects
	setupProtocolOffset = 0x206 // 16 bits: the protocol's version
	ramdiskMaxOffset    = 0x22c // 32 bits: the highest address that a ramdisk's last byte may have
	payloadOffset       = 0x248 // 32 bits, from the start of the protected-mode code
	payloadLength       = 0x24c // 32 bits
	prefAddressOffset   = 0x258 // 64 bits
	initSizeOffset      = 0x260 // 32 bits
	headerEnd           = 0x264

	defaultSetupSects = 4
	sectorSize        = 512
	payloadProtocol   = 0x208 // the first version that has the payload's fields
	layoutProtocol    = 0x20a // and the first that has the fields of the layout
	sizeSuffix        = 4     // bytes behind the compressed stream: the unpacked size (scripts/Makefile.lib, size_append)
)

// TakesCmdlineDevices reports whether a kernel learns of virtio-mmio devices from its command line, as AWS's enclave
// kernels do; others need ACPI. It unpacks the kernel and keeps nothing of it. The error, one line, says why that
// cannot be decided, or is ctx's.
func TakesCmdlineDevices(ctx context.Context, kernel io.ReaderAt, size int64) (bool, error) {
	packed, err := payload(kernel, size)
	if err != nil {
		return false, err
	}
	unpacked, err := unpackKernel(packed)
	if err != nil {
		return false, fmt.Errorf("unpack the kernel: %w", err)
	}
	defer unpacked.Close()
	found, err := contains(&stoppable{ctx, unpacked}, deviceParameter, max(size, maxKernel))
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("unpack the kernel: %w", err)
	}
	return found, err
}

// payload returns the part of a kernel's file that has the kernel itself: all of an ELF file, the compressed part of a
// bzImage.
func payload(kernel io.ReaderAt, size int64) (*io.SectionReader, error) {
	switch format := IdentifyKernel(kernel, size).Format; format {
	case Vmlinux:
		return io.NewSectionReader(kernel, 0, size), nil
	case BzImage:
	default:
		return nil, fmt.Errorf("the kernel is of a format that cannot be read: %s", format)
	}
	var header [headerEnd]byte
	if _, err := kernel.ReadAt(header[:], 0); err != nil {
		return nil, fmt.Errorf("read the kernel's header: %w", err)
	}
	if version := binary.LittleEndian.Uint16(header[setupProtocolOffset:]); version < payloadProtocol {
		return nil, fmt.Errorf("the kernel follows boot protocol %d.%02d, which does not say where the kernel is", version>>8, version&0xff)
	}
	sectors := int64(header[setupSectsOffset])
	if sectors == 0 {
		sectors = defaultSetupSects
	}
	start := (sectors+1)*sectorSize + int64(binary.LittleEndian.Uint32(header[payloadOffset:]))
	length := int64(binary.LittleEndian.Uint32(header[payloadLength:]))
	if length == 0 || start+length > size {
		return nil, errors.New("the kernel is truncated: its compressed part does not lie within the file")
	}
	return io.NewSectionReader(kernel, start, length), nil
}

// unpackKernel returns what a kernel's payload unpacks to.
func unpackKernel(packed *io.SectionReader) (io.ReadCloser, error) {
	var first [6]byte
	n, _ := packed.ReadAt(first[:], 0)
	switch {
	case bytes.HasPrefix(first[:n], []byte(elf.ELFMAG)):
		return io.NopCloser(packed), nil
	case !bytes.HasPrefix(first[:n], []byte(magicGzip)): // gzip has the size in its own trailer
		packed = io.NewSectionReader(packed, 0, max(packed.Size()-sizeSuffix, 0))
	}
	r := bufio.NewReaderSize(packed, searchChunk)
	if bytes.HasPrefix(first[:n], []byte(magicXZ)) {
		unpacked, err := newUnfilteredXZ(r)
		return io.NopCloser(unpacked), err
	}
	unpacked, _, err := decompress(r)
	return unpacked, err
}

// contains reports whether r, of at most limit bytes, holds text. It reads no further than it must.
func contains(r io.Reader, text string, limit int64) (bool, error) {
	b := bufio.NewReaderSize(r, searchChunk)
	for total := int64(0); total <= limit; {
		chunk, err := b.Peek(searchChunk)
		switch {
		case bytes.Contains(chunk, []byte(text)):
			return true, nil
		case err == io.EOF:
			return false, nil
		case err != nil:
			return false, err
		}
		n, _ := b.Discard(len(chunk) - len(text) + 1) // text may begin at the chunk's end
		total += int64(n)
	}
	return false, fmt.Errorf("it unpacks to more than %d MiB", limit>>20)
}
