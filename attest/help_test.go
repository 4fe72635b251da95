package attest_test

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/stretchr/testify/require"
	"github.com/veraison/go-cose"

	"github.com/nesim/nesim/attest"
	"github.com/nesim/nesim/attest/pki"
)

const slotUID = 0x0198_1234_5678_9abc

// world is a root, and an enclave under it with a document.
type world struct {
	t          testing.TB
	now        time.Time
	root       *x509.Certificate
	credential *pki.Credential
	doc        *attest.Document
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, now: time.Now()}
	a, err := pki.NewAuthority(w.now)
	require.NoError(t, err)
	instance, err := pki.NewInstance(a, pki.Profile{})
	require.NoError(t, err)
	enclave := instance.Enclave(slotUID)
	w.root = a.Root()
	w.credential, err = enclave.Credential()
	require.NoError(t, err)
	w.doc = &attest.Document{
		ModuleID: enclave.ModuleID(), Digest: attest.DigestSHA384, Timestamp: uint64(w.now.UnixMilli()),
		PCRs: map[uint64][]byte{}, Certificate: w.credential.Certificate, CABundle: w.credential.CABundle,
		PublicKey: []byte("a key"), UserData: []byte("some data"), Nonce: []byte("a nonce"),
	}
	for i := range uint64(16) {
		w.doc.PCRs[i] = bytes.Repeat([]byte{byte(i)}, 48)
	}
	return w
}

// sign signs the document.
func (w *world) sign() []byte {
	signed, err := w.doc.Sign(w.credential.Key)
	require.NoError(w.t, err)
	return signed
}

// signPayload signs anything.
func (w *world) signPayload(payload []byte) []byte {
	signer, err := cose.NewSigner(cose.AlgorithmES384, w.credential.Key)
	require.NoError(w.t, err)
	headers := cose.Headers{Protected: cose.ProtectedHeader{cose.HeaderLabelAlgorithm: cose.AlgorithmES384}}
	signed, err := cose.Sign1Untagged(rand.Reader, signer, headers, payload, nil)
	require.NoError(w.t, err)
	return signed
}

// signWith signs the document with one field as something else; nil removes it.
func (w *world) signWith(field string, value any) []byte {
	var fields map[string]any
	require.NoError(w.t, cbor.Unmarshal(w.doc.Encode(), &fields))
	if fields[field] = value; value == nil {
		delete(fields, field)
	}
	payload, err := cbor.Marshal(fields)
	require.NoError(w.t, err)
	return w.signPayload(payload)
}

func (w *world) expect() attest.Expect {
	return attest.Expect{Roots: []attest.Fingerprint{attest.FingerprintOf(w.root)}, At: w.now}
}

// refuses checks that Verify refuses a document by a rule.
func (w *world) refuses(signed []byte, rule error, what ...any) {
	w.t.Helper()
	d, err := attest.Verify(signed, w.expect())
	require.ErrorIs(w.t, err, rule, what...)
	require.Nil(w.t, d)
	require.NotContains(w.t, err.Error(), "\n")
}
