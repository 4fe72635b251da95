package eif

import (
	"context"
	"fmt"
	"hash/crc32"
)

// crcPoly is the IEEE polynomial in the reversed bit order of the IEEE table.
const crcPoly = crc32.IEEE

// combineCRC returns the CRC32 of a followed by b, given the CRC32 of each and b's length in bytes. With it the CRC of
// a file whose header is known last needs no second pass.
//
// A CRC is the remainder of a polynomial over GF(2); to append n bytes is to multiply by x^8n.
func combineCRC(a, b uint32, n int64) uint32 {
	shift := uint32(1) << 31 // x^0: bit 31 is the lowest power
	power := uint32(1) << 23 // x^8
	for ; n > 0; n >>= 1 {
		if n&1 != 0 {
			shift = multiplyCRC(shift, power)
		}
		power = multiplyCRC(power, power)
	}
	return multiplyCRC(a, shift) ^ b
}

// multiplyCRC returns a times b modulo the polynomial.
func multiplyCRC(a, b uint32) uint32 {
	var product uint32
	for bit := uint32(1) << 31; bit != 0; bit >>= 1 {
		if a&bit != 0 {
			product ^= b
		}
		carry := b & 1
		b >>= 1
		if carry != 0 {
			b ^= crcPoly
		}
	}
	return product
}

// fileCRC returns the CRC32 of a file with this header and sections, of whose data the CRC32s are given.
func fileCRC(h *Header, sections []Section, data []uint32) uint32 {
	crc := crc32.ChecksumIEEE(h.bytes()[:HeaderSize-crcSize])
	for i, s := range sections {
		crc = addSection(crc, s, data[i])
	}
	return crc
}

func addSection(crc uint32, s Section, data uint32) uint32 {
	crc = crc32.Update(crc, crc32.IEEETable, s.header().bytes())
	return combineCRC(crc, data, s.Size)
}

// checkCRC compares the header's CRC32 with the one computed from the sections' data, which it returns. The
// specification has it "over the whole file" and then names header and sections: where bytes between sections belong to
// none, either reading is right. The error wraps ErrCRC, or is ctx's or the reader's.
func (img *Image) checkCRC(ctx context.Context, data []uint32) (computed uint32, err error) {
	computed = fileCRC(&img.header, img.sections, data)
	if computed == img.header.CRC32 {
		return computed, nil
	}
	if img.Stray() > 0 {
		if whole, err := img.wholeCRC(ctx, data); err != nil || whole == img.header.CRC32 {
			return whole, err
		}
	}
	return computed, fmt.Errorf("%w: its CRC32 is %08x, its header says %08x", ErrCRC, computed, img.header.CRC32)
}

// wholeCRC is fileCRC with the bytes between the sections.
func (img *Image) wholeCRC(ctx context.Context, data []uint32) (uint32, error) {
	crc := crc32.ChecksumIEEE(img.header.bytes()[:HeaderSize-crcSize])
	buf := make([]byte, chunkSize)
	for i, g := range img.gaps() {
		for at := int64(0); at < g.size; {
			if err := ctx.Err(); err != nil {
				return 0, err
			}
			p := buf[:min(int64(len(buf)), g.size-at)]
			if err := readAt(img.r, p, g.offset+at); err != nil {
				return 0, fmt.Errorf("reading the EIF before section %d: %w", i, err)
			}
			crc = crc32.Update(crc, crc32.IEEETable, p)
			at += int64(len(p))
		}
		crc = addSection(crc, img.sections[i], data[i])
	}
	return crc, nil
}
