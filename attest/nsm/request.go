package nsm

import (
	"github.com/fxamacker/cbor/v2"
)

// requests decodes what an enclave sends: no duplicates, no tags, bounded.
var requests = must(cbor.DecOptions{
	DupMapKey:         cbor.DupMapKeyEnforcedAPF,
	TagsMd:            cbor.TagsForbidden,
	MaxNestedLevels:   4,
	MaxArrayElements:  MaxRequest,
	FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
}.DecMode())

func must(mode cbor.DecMode, err error) cbor.DecMode {
	if err != nil {
		panic(err) // the options above are wrong
	}
	return mode
}

// arguments are those of all requests. As the API's decoder does, ours takes null for
// an optional one that is missing and passes over others.
type arguments struct {
	Index     *uint16 `cbor:"index"`
	Range     *uint16 `cbor:"range"`
	Data      *octets `cbor:"data"`
	UserData  *octets `cbor:"user_data"`
	Nonce     *octets `cbor:"nonce"`
	PublicKey *octets `cbor:"public_key"`
}

// octets are bytes, which the API's decoder also takes as a text or as an array of numbers.
type octets []byte

// UnmarshalCBOR implements cbor.Unmarshaler.
func (o *octets) UnmarshalCBOR(item []byte) error {
	if item[0]>>5 != 3 {
		return requests.Unmarshal(item, (*[]byte)(o))
	}
	var s string
	err := requests.Unmarshal(item, &s)
	*o = octets(s)
	return err
}

// bytes returns nil for what is missing.
func (o *octets) bytes() []byte {
	if o == nil {
		return nil
	}
	return *o
}

// fitsRequest reports whether a request for a document can carry the fields. Only the whole request has a limit.
func fitsRequest(userData, nonce, publicKey []byte) bool {
	shortest, err := cbor.Marshal(variant{"Attestation": struct {
		UserData  []byte `cbor:"user_data,omitempty"`
		Nonce     []byte `cbor:"nonce,omitempty"`
		PublicKey []byte `cbor:"public_key,omitempty"`
	}{userData, nonce, publicKey}})
	return err == nil && len(shortest) <= MaxRequest
}

// parse takes a request apart: its name, and the item with its arguments, which is nil
// for a request that is a text string.
func parse(request []byte) (name string, args cbor.RawMessage, err error) {
	if requests.Unmarshal(request, &name) == nil {
		return name, nil, nil
	}
	var m map[string]cbor.RawMessage
	if requests.Unmarshal(request, &m) != nil || len(m) != 1 {
		return "", nil, InvalidOperation
	}
	for name, args = range m {
	}
	return name, args, nil
}

// decode decodes the arguments of a request, which are in a map.
func decode(item cbor.RawMessage) (a arguments, err error) {
	if len(item) == 0 || item[0]>>5 != 5 || requests.Unmarshal(item, &a) != nil {
		return a, InvalidArgument
	}
	return a, nil
}
