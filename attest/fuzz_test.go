package attest_test

import (
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/attest"
)

// FuzzVerify reads documents of any kind. What can be read must be the same when it is
// encoded and read again, and no document but the good one is signed by its root.
func FuzzVerify(f *testing.F) {
	w := newWorld(f)
	good := w.sign()
	f.Add(good)
	f.Add(append([]byte{0xd2}, good...))
	w.doc.PublicKey, w.doc.UserData, w.doc.Nonce = nil, nil, []byte{}
	f.Add(w.sign())
	f.Add(realDocument(f))
	f.Add([]byte{0x84, 0x44, 0xa1, 0x01, 0x38, 0x22, 0xa0, 0x41, 0xa0, 0x40})
	for _, field := range append(badFields(w), strictFields(w)...) {
		f.Add(w.signWith(field.name, field.value))
	}
	f.Fuzz(func(t *testing.T, signed []byte) {
		d, err := attest.Decode(signed)
		if err != nil {
			require.Nil(t, d)
			_, err = attest.Verify(signed, w.expect())
			require.Error(t, err)
			return
		}
		if payload := d.Encode(); len(payload) <= attest.MaxPayload {
			unsigned, err := cbor.Marshal([]any{[]byte{0xa1, 0x01, 0x38, 0x22}, map[int]int{}, payload, []byte{}})
			require.NoError(t, err)
			again, err := attest.Decode(unsigned)
			require.NoError(t, err)
			require.Equal(t, d, again)
		}
		attest.Verify(signed, attest.Expect{Roots: []attest.Fingerprint{attest.AWSRoot}, At: w.now})
	})
}
