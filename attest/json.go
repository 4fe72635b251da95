package attest

import (
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"time"
)

// MarshalJSON encodes the document for people and scripts: its fields under their own
// names, the timestamp as RFC 3339 has it in UTC, PCRs in hex and in their order, other
// bytes in base64, and null for an optional field that is absent.
func (d *Document) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		ModuleID    string   `json:"module_id"`
		Digest      string   `json:"digest"`
		Timestamp   string   `json:"timestamp"`
		PCRs        pcrs     `json:"pcrs"`
		Certificate []byte   `json:"certificate"`
		CABundle    [][]byte `json:"cabundle"`
		PublicKey   []byte   `json:"public_key"`
		UserData    []byte   `json:"user_data"`
		Nonce       []byte   `json:"nonce"`
	}{
		d.ModuleID, d.Digest, d.Time().Format("2006-01-02T15:04:05.000Z"), d.PCRs,
		d.Certificate, d.CABundle, d.PublicKey, d.UserData, d.Nonce,
	})
}

// Time is the document's timestamp, in UTC.
func (d *Document) Time() time.Time { return time.UnixMilli(int64(d.Timestamp)).UTC() }

type pcrs map[uint64][]byte

// MarshalJSON encodes PCRs in the order of their numbers, which a map's would not be.
func (p pcrs) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for n, i := range slices.Sorted(maps.Keys(p)) {
		if n > 0 {
			b = append(b, ',')
		}
		b = append(strconv.AppendUint(append(b, '"'), i, 10), `":"`...)
		b = append(hex.AppendEncode(b, p[i]), '"')
	}
	return append(b, '}'), nil
}
