package attest

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/fxamacker/cbor/v2"
)

// maxChain bounds the certificates of a bundle; real ones have four.
const maxChain = 16

// envelope is a COSE_Sign1 structure whose items are not looked into yet.
type envelope struct {
	_           struct{} `cbor:",toarray"`
	Protected   cbor.RawMessage
	Unprotected cbor.RawMessage
	Payload     cbor.RawMessage
	Signature   cbor.RawMessage
}

// tagged is the first byte of a tagged COSE_Sign1 structure (CBOR tag 18); section
// 3.1 allows it.
const tagged = 6<<5 | 18

// strict decodes what others may have made: no duplicates, no tags, bounded (at twice
// what is allowed, so that the rules get to name what is too much).
var strict = must(cbor.DecOptions{
	DupMapKey:         cbor.DupMapKeyEnforcedAPF,
	IndefLength:       cbor.IndefLengthAllowed, // documents are maps of indefinite length
	TagsMd:            cbor.TagsForbidden,
	MaxNestedLevels:   4,
	MaxArrayElements:  2 * maxChain,
	MaxMapPairs:       2 * MaxPCRs,
	FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
}.DecMode())

func must(mode cbor.DecMode, err error) cbor.DecMode {
	if err != nil {
		panic(err) // the options above are wrong
	}
	return mode
}

// Decode reads a signed document and checks it by the specification's syntactical
// rules (section 3.2.2). It trusts nobody and checks no signature: Verify does. The
// error wraps the rule that is broken.
func Decode(signed []byte) (*Document, error) {
	_, d, err := decode(signed)
	return d, err
}

// decode also returns the signed structure, untagged.
func decode(signed []byte) ([]byte, *Document, error) {
	if len(signed) > MaxSigned {
		return nil, nil, refuse(ErrTooLong, "%d bytes", len(signed))
	}
	if len(signed) > 0 && signed[0] == tagged {
		signed = signed[1:]
	}
	var e envelope
	if err := strict.Unmarshal(signed, &e); err != nil {
		return nil, nil, refuse(ErrNotCOSE, "%v", err)
	}
	var protected, payload, signature []byte
	switch {
	case !isMajor(signed, cborArray), typed(e.Protected, cborBytes, &protected) != nil, typed(e.Signature, cborBytes, &signature) != nil:
		return nil, nil, refuse(ErrNotCOSE, "its items are not of the right types")
	case !bytes.Equal(protected, []byte{0xa1, 0x01, 0x38, 0x22}): // {1: -35}, RFC 9053, table 1
		return nil, nil, refuse(ErrAlgorithm, "%x", protected)
	case !bytes.Equal(e.Unprotected, []byte{0xa0}):
		return nil, nil, refuse(ErrHeader, "%x", e.Unprotected[:min(len(e.Unprotected), 32)])
	case typed(e.Payload, cborBytes, &payload) != nil || len(payload) == 0 || len(payload) > MaxPayload:
		return nil, nil, refuse(ErrPayload, "%d bytes", len(payload))
	}
	d, err := decodePayload(payload)
	return signed, d, err
}

// fields are those of section 3.2.2.1, with what reads them.
var fields = [...]struct {
	name     string
	optional bool
	read     func(*Document, cbor.RawMessage) error
}{
	{"module_id", false, func(d *Document, m cbor.RawMessage) error { return typed(m, cborText, &d.ModuleID) }},
	{"digest", false, func(d *Document, m cbor.RawMessage) error { return typed(m, cborText, &d.Digest) }},
	{"timestamp", false, func(d *Document, m cbor.RawMessage) error { return typed(m, cborUint, &d.Timestamp) }},
	{"pcrs", false, (*Document).readPCRs},
	{"certificate", false, func(d *Document, m cbor.RawMessage) error { return typed(m, cborBytes, &d.Certificate) }},
	{"cabundle", false, (*Document).readBundle},
	{"public_key", true, func(d *Document, m cbor.RawMessage) error { return typed(m, cborBytes, &d.PublicKey) }},
	{"user_data", true, func(d *Document, m cbor.RawMessage) error { return typed(m, cborBytes, &d.UserData) }},
	{"nonce", true, func(d *Document, m cbor.RawMessage) error { return typed(m, cborBytes, &d.Nonce) }},
}

func decodePayload(payload []byte) (*Document, error) {
	if !isMajor(payload, cborMap) {
		return nil, refuse(ErrPayload, "not a map")
	}
	var raw map[string]cbor.RawMessage
	if err := strict.Unmarshal(payload, &raw); err != nil {
		return nil, refuse(ErrPayload, "%v", err)
	}
	d := &Document{}
	for _, f := range fields {
		m := raw[f.name]
		delete(raw, f.name)
		if absent := len(m) == 0 || isNull(m); absent && f.optional {
			continue // null stands for absent, as real documents have it
		} else if absent {
			return nil, refuse(ErrMissing, "%s", f.name)
		}
		if err := f.read(d, m); err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	for name := range raw {
		return nil, refuse(ErrUnknownField, "%.40q", name)
	}
	if err := d.check(); err != nil {
		return nil, err
	}
	return d, nil
}

// check applies the rules of section 3.2.2.2.
func (d *Document) check() error {
	switch {
	case d.ModuleID == "":
		return ErrModuleID
	case d.Digest != DigestSHA384:
		return refuse(ErrDigest, "%.40q", d.Digest)
	case d.Timestamp == 0:
		return ErrTimestamp
	case len(d.PCRs) < 1 || len(d.PCRs) > MaxPCRs:
		return refuse(ErrPCRCount, "%d", len(d.PCRs))
	case len(d.CABundle) < 1 || len(d.CABundle) > maxChain:
		return refuse(ErrCABundle, "%d certificates", len(d.CABundle))
	case d.PublicKey != nil && (len(d.PublicKey) < 1 || len(d.PublicKey) > MaxPublicKey):
		return refuse(ErrPublicKey, "%d", len(d.PublicKey))
	case len(d.UserData) > MaxUserData:
		return refuse(ErrUserData, "%d", len(d.UserData))
	case len(d.Nonce) > MaxNonce:
		return refuse(ErrNonce, "%d", len(d.Nonce))
	}
	for i, pcr := range d.PCRs {
		if i >= MaxPCRs {
			return refuse(ErrPCRIndex, "%d", i)
		}
		if n := len(pcr); n != 32 && n != 48 && n != 64 {
			return refuse(ErrPCRLength, "PCR%d has %d", i, n)
		}
	}
	for _, certificate := range append(slices.Clip(d.CABundle), d.Certificate) {
		if len(certificate) < 1 || len(certificate) > MaxCertificate {
			return refuse(ErrCertificateSize, "%d", len(certificate))
		}
	}
	return nil
}

func (d *Document) readPCRs(m cbor.RawMessage) error {
	var raw map[any]cbor.RawMessage
	if err := typed(m, cborMap, &raw); err != nil {
		return err
	}
	d.PCRs = make(map[uint64][]byte, len(raw))
	for key, m := range raw {
		i, ok := key.(uint64)
		if !ok {
			return refuse(ErrType, "a PCR's index is a %T", key)
		}
		var pcr []byte
		if err := typed(m, cborBytes, &pcr); err != nil {
			return err
		}
		d.PCRs[i] = pcr
	}
	return nil
}

func (d *Document) readBundle(m cbor.RawMessage) error {
	var raw []cbor.RawMessage
	if err := typed(m, cborArray, &raw); err != nil {
		return err
	}
	d.CABundle = make([][]byte, len(raw))
	for i, m := range raw {
		if err := typed(m, cborBytes, &d.CABundle[i]); err != nil {
			return err
		}
	}
	return nil
}

// typed decodes an item of one major type.
func typed(m cbor.RawMessage, major byte, to any) error {
	if !isMajor(m, major) {
		return ErrType
	}
	if err := strict.Unmarshal(m, to); err != nil {
		return refuse(ErrType, "%v", err)
	}
	return nil
}

func isMajor(m []byte, major byte) bool { return len(m) > 0 && m[0]&0xe0 == major }

func isNull(m []byte) bool { return len(m) == 1 && m[0] == cborNull }

// refuse wraps a rule with what was found instead.
func refuse(rule error, format string, a ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{rule}, a...)...)
}
