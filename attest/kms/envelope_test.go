package kms

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"testing"

	"github.com/edgebitio/nitro-enclaves-sdk-go/crypto/cms"
	"github.com/stretchr/testify/require"
)

// FuzzCiphertextBlob opens any blob. Nothing but what the key made opens, and only with its own encryption context.
func FuzzCiphertextBlob(f *testing.F) {
	r := &record{ID: "11111111-2222-3333-4444-555555555555", Material: bytes.Repeat([]byte{7}, materialSize)}
	good := r.encrypt([]byte("a secret"), map[string]string{"a": "b"})
	f.Add(good, "a", "b")
	f.Add(good[:blobHeader], "", "")
	f.Add([]byte{blobVersion}, "a", "")
	f.Add([]byte{}, "a", "b")
	f.Fuzz(func(t *testing.T, blob []byte, name, value string) {
		id, ok := keyOf(blob)
		if !ok {
			return
		}
		require.Len(t, id, 36)
		plaintext, err := r.decrypt(blob, map[string]string{name: value})
		if err != nil {
			require.Nil(t, plaintext)
			return
		}
		// The fuzzer's own blob: its process and this one have a different one each.
		require.Equal(t, "a secret", string(plaintext))
		require.Equal(t, []string{r.ID, "a", "b"}, []string{id, name, value})
	})
}

// FuzzRecipientKey reads any public key of an attestation document. What is accepted can be encrypted for, or is refused
// with an error.
func FuzzRecipientKey(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0x30, 0x03, 0x02, 0x01, 0x00})
	key, err := rsa.GenerateKey(rand.Reader, minRSA)
	require.NoError(f, err)
	good, err := x509.MarshalPKIXPublicKey(key.Public())
	require.NoError(f, err)
	f.Add(good)
	f.Fuzz(func(t *testing.T, spki []byte) {
		key, err := rsaKey(spki)
		if err != nil {
			require.Nil(t, key)
			return
		}
		handed, err := (&recipient{key: key}).hand([]byte("a secret"))
		if err == nil {
			require.NotContains(t, string(handed.CiphertextForRecipient), "a secret")
		}
	})
}

// FuzzEnvelope wraps any plaintext. An enclave's library opens it.
func FuzzEnvelope(f *testing.F) {
	key, err := rsa.GenerateKey(rand.Reader, minRSA)
	require.NoError(f, err)
	for _, size := range []int{1, 15, 16, 17, maxRandom, maxPlaintext} {
		f.Add(bytes.Repeat([]byte{0x10}, size))
	}
	f.Fuzz(func(t *testing.T, plaintext []byte) {
		if len(plaintext) == 0 || len(plaintext) > maxPlaintext {
			return // no operation has such a one
		}
		enveloped, err := envelope(plaintext, &key.PublicKey)
		require.NoError(t, err)
		opened, err := cms.DecryptEnvelopedKey(key, enveloped)
		require.NoError(t, err)
		require.Equal(t, plaintext, opened)
	})
}
