package eif

import (
	"bytes"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
)

// Digest is a SHA-384 digest, as a PCR holds it.
type Digest [sha512.Size384]byte

// String returns the digest in lower-case hex.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText returns String's text.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText takes 96 hex digits.
func (d *Digest) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(d)) {
		return fmt.Errorf("a SHA-384 digest has %d hex digits, not %d", hex.EncodedLen(len(d)), len(text))
	}
	if _, err := hex.Decode(d[:], text); err != nil {
		return fmt.Errorf("not a SHA-384 digest: %w", err)
	}
	return nil
}

// extend returns the value of a PCR that was zero and was extended once with content, the SHA-384 of what it measures:
// the specification's "EIF Measurements".
func extend(content []byte) Digest {
	return sha512.Sum384(append(make([]byte, len(Digest{})), content...))
}

// PCR returns the value of a PCR that measures all that r has, as nitro-cli's pcr command does.
func PCR(r io.Reader) (Digest, error) {
	h := sha512.New384()
	if _, err := io.CopyBuffer(struct{ io.Writer }{h}, r, make([]byte, chunkSize)); err != nil {
		return Digest{}, err
	}
	return extend(h.Sum(nil)), nil
}

// HashAlgorithm is what nitro-cli prints for the hash of an image's measurements.
const HashAlgorithm = "Sha384 { ... }"

// Measurements are the PCRs that an image determines.
type Measurements struct {
	PCR0 Digest  // kernel, command line and all ramdisks
	PCR1 Digest  // kernel, command line and the first ramdisk
	PCR2 Digest  // the other ramdisks
	PCR8 *Digest // the signing certificate in DER; nil where the image is not signed
}

// MarshalJSON returns an object with nitro-cli's keys in nitro-cli's order.
func (m Measurements) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		HashAlgorithm    string
		PCR0, PCR1, PCR2 Digest
		PCR8             *Digest `json:",omitempty"`
	}{HashAlgorithm, m.PCR0, m.PCR1, m.PCR2, m.PCR8})
}

// Equal reports whether m and o are the same, PCR8 included.
func (m Measurements) Equal(o Measurements) bool {
	same := m.PCR0 == o.PCR0 && m.PCR1 == o.PCR1 && m.PCR2 == o.PCR2
	if m.PCR8 == nil || o.PCR8 == nil {
		return same && m.PCR8 == o.PCR8
	}
	return same && bytes.Equal(m.PCR8[:], o.PCR8[:])
}
