package attest

import (
	"encoding/binary"
	"maps"
	"math"
	"slices"
)

// First bytes of CBOR items: RFC 8949, section 3 and appendix B.
const (
	cborUint          = 0 << 5
	cborBytes         = 2 << 5
	cborText          = 3 << 5
	cborArray         = 4 << 5
	cborMap           = 5 << 5
	cborNull          = 0xf6
	cborIndefiniteMap = 0xbf
	cborBreak         = 0xff
)

// Encode returns the document in CBOR, byte for byte as the Nitro hypervisor does it:
// a map of indefinite length (documents of 2025 and before have one of definite
// length; what is inside is of definite length in both), the fields in the order of
// Document, the timestamp in eight bytes, and null for an optional field that is
// absent.
func (d *Document) Encode() []byte {
	b := make([]byte, 0, 6144) // more than documents have that carry little data of their own
	b = append(b, cborIndefiniteMap)
	b = appendText(appendText(b, "module_id"), d.ModuleID)
	b = appendText(appendText(b, "digest"), d.Digest)
	b = append(appendText(b, "timestamp"), cborUint|27)
	b = binary.BigEndian.AppendUint64(b, d.Timestamp)
	b = appendHead(appendText(b, "pcrs"), cborMap, uint64(len(d.PCRs)))
	for _, i := range slices.Sorted(maps.Keys(d.PCRs)) {
		b = appendBytes(appendHead(b, cborUint, i), d.PCRs[i])
	}
	b = appendBytes(appendText(b, "certificate"), d.Certificate)
	b = appendHead(appendText(b, "cabundle"), cborArray, uint64(len(d.CABundle)))
	for _, certificate := range d.CABundle {
		b = appendBytes(b, certificate)
	}
	b = appendOptional(appendText(b, "public_key"), d.PublicKey)
	b = appendOptional(appendText(b, "user_data"), d.UserData)
	b = appendOptional(appendText(b, "nonce"), d.Nonce)
	return append(b, cborBreak)
}

// appendHead appends the head of an item, as short as can be.
func appendHead(b []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n <= math.MaxUint8:
		return append(b, major|24, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(b, major|25), uint16(n))
	case n <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(b, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, major|27), n)
}

func appendText(b []byte, s string) []byte {
	return append(appendHead(b, cborText, uint64(len(s))), s...)
}

func appendBytes(b, p []byte) []byte {
	return append(appendHead(b, cborBytes, uint64(len(p))), p...)
}

func appendOptional(b, p []byte) []byte {
	if p == nil {
		return append(b, cborNull)
	}
	return appendBytes(b, p)
}
