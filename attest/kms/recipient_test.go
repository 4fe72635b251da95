package kms_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/attest/kms"
	"github.com/nesim/nesim/attest/nsm"
)

// enclavePolicy is as in the documentation: the account administers the key, and the
// parent's role may use it from enclaves with a PCR0.
func enclavePolicy(pcr0 byte) string {
	return fmt.Sprintf(`{"Version": "2012-10-17", "Statement": [
		{"Sid": "Administrators", "Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::123456789012:root"}, "Action": "kms:*", "Resource": "*"},
		{"Sid": "Enclaves", "Effect": "Allow", "Principal": {"AWS": "%s"}, "Action": ["kms:Decrypt", "kms:GenerateDataKey"], "Resource": "*",
			"Condition": {"StringEqualsIgnoreCase": {"kms:RecipientAttestation:ImageSha384": "%s"}}}]}`,
		nsm.DefaultRoleARN, strings.Repeat(fmt.Sprintf("%02X", pcr0), 48))
}

func TestAnEnclaveGetsWhatOnlyItCanRead(t *testing.T) {
	w := newWorld(t)
	id := w.createKey(enclavePolicy(0xab))
	e := w.enclave(0xab)
	c := w.client(roleToken)

	opened, err := c.Decrypt(t.Context(), &sdk.DecryptInput{CiphertextBlob: w.encrypt(id, "a secret"), Recipient: e.recipient()})
	require.NoError(t, err)
	require.Empty(t, opened.Plaintext)
	require.Equal(t, "a secret", string(e.open(opened.CiphertextForRecipient)))

	made, err := c.GenerateDataKey(t.Context(), &sdk.GenerateDataKeyInput{KeyId: &id, KeySpec: types.DataKeySpecAes256, Recipient: e.recipient()})
	require.NoError(t, err)
	require.Empty(t, made.Plaintext)
	secret := e.open(made.CiphertextForRecipient)
	require.Len(t, secret, 32)
	again, err := c.Decrypt(t.Context(), &sdk.DecryptInput{CiphertextBlob: made.CiphertextBlob, Recipient: e.recipient()})
	require.NoError(t, err)
	require.Equal(t, secret, e.open(again.CiphertextForRecipient))

	random, err := c.GenerateRandom(t.Context(), &sdk.GenerateRandomInput{NumberOfBytes: aws.Int32(1024), Recipient: e.recipient()})
	require.NoError(t, err)
	require.Empty(t, random.Plaintext)
	require.Len(t, e.open(random.CiphertextForRecipient), 1024)
}

func TestWhoIsNotTheEnclaveIsDenied(t *testing.T) {
	w := newWorld(t)
	id := w.createKey(enclavePolicy(0xab))
	blob := w.encrypt(id, "a secret")
	decrypt := func(token string, to *types.RecipientInfo) error {
		_, err := w.client(token).Decrypt(t.Context(), &sdk.DecryptInput{CiphertextBlob: blob, Recipient: to})
		return err
	}
	good := w.enclave(0xab)
	require.NoError(t, decrypt(roleToken, good.recipient()))
	require.NoError(t, decrypt(nsm.DefaultRoleARN, good.recipient()))

	w.refuses(decrypt(roleToken, w.enclave(0xac).recipient()), "AccessDeniedException",
		"User: "+nsm.DefaultRoleARN+" is not authorized to perform: kms:Decrypt on resource: arn:aws:kms:us-east-1:123456789012:key/"+id)
	debug := w.enclave(0xab, func(c *nsm.Config) { c.Debug = true })
	w.refuses(decrypt(roleToken, debug.recipient()), "AccessDeniedException")
	w.refuses(decrypt(roleToken, nil), "AccessDeniedException")
	w.refuses(decrypt("arn:aws:iam::123456789012:role/other", good.recipient()), "AccessDeniedException", "role/other")
	_, err := w.client(roleToken).Encrypt(t.Context(), &sdk.EncryptInput{KeyId: &id, Plaintext: []byte("x")})
	w.refuses(err, "AccessDeniedException", "kms:Encrypt")
	_, err = w.client(roleToken).GenerateDataKey(t.Context(), &sdk.GenerateDataKeyInput{KeyId: &id, KeySpec: types.DataKeySpecAes256})
	w.refuses(err, "AccessDeniedException")

	zeros := w.createKey(enclavePolicy(0))
	_, err = w.client(roleToken).Decrypt(t.Context(), &sdk.DecryptInput{CiphertextBlob: w.encrypt(zeros, "a secret"), Recipient: debug.recipient()})
	require.NoError(t, err, "a policy for debug mode")
}

func TestOldDocumentsAreRefused(t *testing.T) {
	w := newWorld(t)
	id := w.createKey(enclavePolicy(1))
	blob := w.encrypt(id, "a secret")
	e := w.enclave(1)
	to := e.recipient()
	decrypt := func() error {
		_, err := w.client(roleToken).Decrypt(t.Context(), &sdk.DecryptInput{CiphertextBlob: blob, Recipient: to})
		return err
	}
	require.NoError(t, decrypt())
	w.pass(kms.MaxAge - time.Second)
	require.NoError(t, decrypt())
	w.pass(2 * time.Second)
	w.refuses(decrypt(), "ValidationException", "make a new one")
	w.pass(4 * time.Hour)
	w.refuses(decrypt(), "ValidationException", "expired")
	to = e.recipient()
	require.NoError(t, decrypt())
	w.pass(-kms.MaxAge - time.Second)
	w.refuses(decrypt(), "ValidationException", "not valid")
}

func TestBadRecipientsAreRefused(t *testing.T) {
	w := newWorld(t)
	e := w.enclave(1)
	good := e.recipient()
	random := func(to *types.RecipientInfo) error {
		_, err := w.client("").GenerateRandom(t.Context(), &sdk.GenerateRandomInput{NumberOfBytes: aws.Int32(1), Recipient: to})
		return err
	}
	require.NoError(t, random(good))

	other := newWorld(t).enclave(1).recipient()
	w.refuses(random(other), "ValidationException", "root")
	changed := bytes.Clone(good.AttestationDocument)
	changed[len(changed)/2] ^= 1
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	ecPublic, err := x509.MarshalPKIXPublicKey(ec.Public())
	require.NoError(t, err)
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	require.NoError(t, err)
	shortPublic, err := x509.MarshalPKIXPublicKey(short.Public())
	require.NoError(t, err)
	even := new(big.Int).SetBit(e.key.N, 0, 0)
	evenPublic, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: even, E: 65537})
	require.NoError(t, err)
	for name, bad := range map[string]*types.RecipientInfo{
		"nothing":        {KeyEncryptionAlgorithm: good.KeyEncryptionAlgorithm},
		"no algorithm":   {AttestationDocument: good.AttestationDocument},
		"algorithm":      {AttestationDocument: good.AttestationDocument, KeyEncryptionAlgorithm: "RSAES_OAEP_SHA_1"},
		"junk":           {AttestationDocument: []byte("junk"), KeyEncryptionAlgorithm: good.KeyEncryptionAlgorithm},
		"over-long":      {AttestationDocument: make([]byte, 200<<10), KeyEncryptionAlgorithm: good.KeyEncryptionAlgorithm},
		"changed":        {AttestationDocument: changed, KeyEncryptionAlgorithm: good.KeyEncryptionAlgorithm},
		"no key":         e.recipientFor(nil),
		"no key at all":  e.recipientFor([]byte("key")),
		"PKCS #1":        e.recipientFor(x509.MarshalPKCS1PublicKey(&e.key.PublicKey)),
		"elliptic curve": e.recipientFor(ecPublic),
		"short":          e.recipientFor(shortPublic),
		"even":           e.recipientFor(evenPublic),
	} {
		require.NotNil(t, bad, name)
		w.refuses(random(bad), "ValidationException")
	}
}

// TestTheEnvelopeIsAsAWSMakesIt compares all but what is random with an envelope of AWS KMS for a key of 2048 bits.
func TestTheEnvelopeIsAsAWSMakesIt(t *testing.T) {
	w := newWorld(t)
	e := w.enclave(1)
	out, err := w.client("").GenerateRandom(t.Context(), &sdk.GenerateRandomInput{NumberOfBytes: aws.Int32(32), Recipient: e.recipient()})
	require.NoError(t, err)
	got := out.CiphertextForRecipient
	for _, part := range []struct {
		fixed  string
		random int
	}{
		{"308006092a864886f70d010703a0803080020102" + "3182016b30820167020102" + "8020", 32},
		{"303c06092a864886f70d010107302fa00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d06096086480165030402010500" + "04820100", 256},
		{"308006092a864886f70d010701" + "301d060960864801650304012a0410", 16},
		{"a0800430", 48},
		{"00000000000000000000", 0},
	} {
		fixed, err := hex.DecodeString(part.fixed)
		require.NoError(t, err)
		require.Equal(t, part.fixed, hex.EncodeToString(got[:len(fixed)]))
		got = got[len(fixed)+part.random:]
	}
	require.Empty(t, got)
	var v asn1.RawValue
	_, err = asn1.Unmarshal(out.CiphertextForRecipient, &v)
	require.Error(t, err, "it is BER")
}
