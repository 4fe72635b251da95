package nsm

import (
	"errors"

	"github.com/fxamacker/cbor/v2"
)

// Limits in bytes: NSM_REQUEST_MAX_SIZE and NSM_RESPONSE_MAX_SIZE of include/uapi/linux/nsm.h.
const (
	MaxRequest  = 0x1000
	MaxResponse = 0x3000
)

// Handle answers one request in CBOR. It takes anything for one, and always has an answer.
func (n *NSM) Handle(request []byte) []byte { return n.Respond(request, MaxResponse) }

// Respond is Handle for a response of at most room bytes: one that is longer becomes
// BufferTooSmall, or nothing where that does not fit either.
func (n *NSM) Respond(request []byte, room int) []byte {
	response := encode(n.do(request))
	if room = min(room, MaxResponse); len(response) > room {
		response = encode(nil, BufferTooSmall)
	}
	if len(response) > room {
		return nil
	}
	return response
}

// do does what is requested and returns the response before it is encoded.
func (n *NSM) do(request []byte) (any, error) {
	if len(request) > MaxRequest {
		return nil, InputTooLarge
	}
	name, item, err := parse(request)
	if err != nil {
		return nil, err
	}
	if item == nil {
		switch name {
		case "DescribeNSM":
			return variant{name: n.DescribeNSM()}, nil
		case "GetRandom":
			return variant{name: random{n.GetRandom()}}, nil
		}
		return nil, InvalidOperation
	}
	f := operations[name]
	if f == nil {
		return nil, InvalidOperation
	}
	args, err := decode(item)
	if err != nil {
		return nil, err
	}
	return f(n, &args)
}

// operations are the requests with arguments.
var operations = map[string]func(*NSM, *arguments) (any, error){
	"DescribePCR": func(n *NSM, a *arguments) (any, error) {
		if a.Index == nil {
			return nil, InvalidArgument
		}
		pcr, err := n.DescribePCR(*a.Index)
		return variant{"DescribePCR": register{pcr.Locked, pcr.Value[:]}}, err
	},
	"ExtendPCR": func(n *NSM, a *arguments) (any, error) {
		if a.Index == nil || a.Data == nil {
			return nil, InvalidArgument
		}
		value, err := n.ExtendPCR(*a.Index, *a.Data)
		return variant{"ExtendPCR": extended{value[:]}}, err
	},
	"LockPCR": func(n *NSM, a *arguments) (any, error) {
		if a.Index == nil {
			return nil, InvalidArgument
		}
		return "LockPCR", n.LockPCR(*a.Index)
	},
	"LockPCRs": func(n *NSM, a *arguments) (any, error) {
		if a.Range == nil {
			return nil, InvalidArgument
		}
		return "LockPCRs", n.LockPCRs(*a.Range)
	},
	"Attestation": func(n *NSM, a *arguments) (any, error) {
		signed, err := n.Attestation(a.UserData.bytes(), a.Nonce.bytes(), a.PublicKey.bytes())
		return variant{"Attestation": attestation{signed}}, err
	},
}

// variant is a variant with fields: its name, and one of the types below or a
// Description. Fields go out in the order in which they stand.
type variant map[string]any

type register struct {
	Lock bool   `cbor:"lock"`
	Data []byte `cbor:"data"`
}

type extended struct {
	Data []byte `cbor:"data"`
}

type attestation struct {
	Document []byte `cbor:"document"`
}

type random struct {
	Random []byte `cbor:"random"`
}

// encode encodes a response, or the error that there is instead.
func encode(response any, err error) []byte {
	if err != nil {
		code := InternalError
		errors.As(err, &code)
		response = variant{"Error": code}
	}
	b, err := cbor.Marshal(response)
	if err != nil {
		panic(err) // every response can be encoded
	}
	return b
}
