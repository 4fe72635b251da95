package eif

import "hash/crc32"

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
		crc = crc32.Update(crc, crc32.IEEETable, s.header().bytes())
		crc = combineCRC(crc, data[i], s.Size)
	}
	return crc
}
