package pki

import (
	"crypto/rand"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"time"
)

// Partition stands in names where AWS's own have "aws".
const Partition = "nesim"

const (
	organization = "nesim"
	unit         = "Simulated"
)

// Attributes of names: RFC 5280, appendix A.1.
var (
	commonName = asn1.ObjectIdentifier{2, 5, 4, 3}
	country    = asn1.ObjectIdentifier{2, 5, 4, 6}
	locality   = asn1.ObjectIdentifier{2, 5, 4, 7}
	province   = asn1.ObjectIdentifier{2, 5, 4, 8}
	org        = asn1.ObjectIdentifier{2, 5, 4, 10}
	orgUnit    = asn1.ObjectIdentifier{2, 5, 4, 11}
)

// attribute is one part of a name.
type attribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

// part makes an attribute; the country is a PrintableString and all else are UTF8Strings, as in AWS's names.
func part(t asn1.ObjectIdentifier, value string) []attribute {
	tag := asn1.TagUTF8String
	if t.Equal(country) {
		tag = asn1.TagPrintableString
	}
	return []attribute{{t, asn1.RawValue{Tag: tag, Bytes: []byte(value)}}}
}

// relativeNames is a set, which holds one attribute here.
type relativeNamesSET []attribute

func encodeName(parts ...[]attribute) []byte {
	var name []relativeNamesSET
	for _, p := range parts {
		name = append(name, p)
	}
	der, err := asn1.Marshal(name)
	if err != nil {
		panic(err) // every part is a valid attribute
	}
	return der
}

// rootName and those below are the names of the five levels.
func rootName() []byte { return regionName(Partition + ".nitro-enclaves") }

func regionName(cn string) []byte {
	return encodeName(part(country, "US"), part(org, organization), part(orgUnit, unit), part(commonName, cn))
}

func zoneName(cn string) []byte {
	return encodeName(part(commonName, cn), part(orgUnit, unit), part(org, organization), part(country, "US"),
		part(province, "WA"), part(locality, "Seattle"))
}

func hostName(cn string) []byte {
	return encodeName(part(country, "US"), part(province, "Washington"), part(locality, "Seattle"),
		part(org, organization), part(orgUnit, unit), part(commonName, cn))
}

// NewInstanceID returns a random instance id.
func NewInstanceID() string { return "i-0" + randomHex(8) }

// NewSlotUID makes a slot uid for an enclave that has no slot: the time in milliseconds
// and two random bytes, as the Nitro hypervisor has it.
func NewSlotUID(now time.Time) uint64 {
	var b [2]byte
	rand.Read(b[:])
	return uint64(now.UnixMilli())<<16 | uint64(binary.BigEndian.Uint16(b[:]))
}

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return hex.EncodeToString(b)
}
