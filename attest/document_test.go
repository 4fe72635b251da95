package attest_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/attest"
)

func TestADocumentIsEncodedAsTheHypervisorDoesIt(t *testing.T) {
	d := &attest.Document{
		ModuleID: "i-1-enc2", Digest: "SHA384", Timestamp: 0x0198_0000_0001,
		PCRs:        map[uint64][]byte{24: {4}, 0: {1, 2}},
		Certificate: bytes.Repeat([]byte{7}, 300), CABundle: [][]byte{{8}, {9}},
		Nonce: []byte{},
	}
	want := "bf" +
		"69" + hex.EncodeToString([]byte("module_id")) + "68" + hex.EncodeToString([]byte("i-1-enc2")) +
		"66" + hex.EncodeToString([]byte("digest")) + "66" + hex.EncodeToString([]byte("SHA384")) +
		"69" + hex.EncodeToString([]byte("timestamp")) + "1b0000019800000001" +
		"64" + hex.EncodeToString([]byte("pcrs")) + "a2" + "00420102" + "18184104" +
		"6b" + hex.EncodeToString([]byte("certificate")) + "59012c" + hex.EncodeToString(d.Certificate) +
		"68" + hex.EncodeToString([]byte("cabundle")) + "82" + "4108" + "4109" +
		"6a" + hex.EncodeToString([]byte("public_key")) + "f6" +
		"69" + hex.EncodeToString([]byte("user_data")) + "f6" +
		"65" + hex.EncodeToString([]byte("nonce")) + "40" +
		"ff"
	require.Equal(t, want, hex.EncodeToString(d.Encode()))
	require.NoError(t, cbor.Wellformed(d.Encode()))
}

func TestASignedDocumentIsAnUntaggedCOSESign1(t *testing.T) {
	w := newWorld(t)
	signed := w.sign()
	require.Equal(t, "84"+"44a1013822"+"a0"+"59", hex.EncodeToString(signed[:8]))
	require.Equal(t, "5860", hex.EncodeToString(signed[len(signed)-98:len(signed)-96]), "96 bytes of signature")
}

func TestADocumentIsReadAsItWasMade(t *testing.T) {
	w := newWorld(t)
	for _, change := range []func(*attest.Document){
		func(*attest.Document) {},
		func(d *attest.Document) { d.PublicKey, d.UserData, d.Nonce = nil, nil, nil },
		func(d *attest.Document) { d.UserData, d.Nonce = []byte{}, []byte{} },
		func(d *attest.Document) {
			d.PublicKey, d.UserData, d.Nonce = make([]byte, 1024), make([]byte, 4096), make([]byte, 4096)
		},
		func(d *attest.Document) {
			for i := range uint64(attest.MaxPCRs) {
				d.PCRs[i] = make([]byte, 64)
			}
		},
	} {
		change(w.doc)
		got, err := attest.Decode(w.sign())
		require.NoError(t, err)
		require.Equal(t, w.doc, got)
	}
}

func TestDocumentsMayBeTaggedAndTheirMapsOfDefiniteLength(t *testing.T) {
	w := newWorld(t)
	_, err := attest.Verify(append([]byte{0xd2}, w.sign()...), w.expect())
	require.NoError(t, err)

	definite := w.doc.Encode()
	definite[0] = 0xa9
	_, err = attest.Verify(w.signPayload(definite[:len(definite)-1]), w.expect())
	require.NoError(t, err)

	_, err = attest.Verify(w.signWith("nonce", nil), w.expect())
	require.NoError(t, err, "an optional field may be missing")
}

func TestADocumentInJSON(t *testing.T) {
	d := &attest.Document{
		ModuleID: "i-1-enc2", Digest: "SHA384", Timestamp: 1_700_000_000_007, PCRs: map[uint64][]byte{10: {1}, 9: {2, 0xff}},
		Certificate: []byte("c"), CABundle: [][]byte{[]byte("root")}, Nonce: []byte{},
	}
	b, err := json.Marshal(d)
	require.NoError(t, err)
	require.Equal(t, `{"module_id":"i-1-enc2","digest":"SHA384","timestamp":"2023-11-14T22:13:20.007Z",`+
		`"pcrs":{"9":"02ff","10":"01"},"certificate":"Yw==","cabundle":["cm9vdA=="],`+
		`"public_key":null,"user_data":null,"nonce":""}`, string(b))
	_, err = d.Chain()
	require.ErrorIs(t, err, attest.ErrCertificate)
}
