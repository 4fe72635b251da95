package kms_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	sdk "github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"
	"github.com/edgebitio/nitro-enclaves-sdk-go/crypto/cms"
	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/attest"
	"github.com/nesim/nesim/attest/kms"
	"github.com/nesim/nesim/attest/nsm"
	"github.com/nesim/nesim/attest/pki"
	"github.com/nesim/nesim/eif"
)

// roleToken is a session token, as the parent's role has one.
const roleToken = "a session"

// world is a root of attestation, and a KMS that trusts it.
type world struct {
	testing.TB
	config    kms.Config
	authority *pki.Authority
	service   *kms.Service
	url       string

	log syncBuffer

	mu  sync.Mutex
	now time.Time
}

// syncBuffer is a buffer that a service writes and a test reads.
type syncBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// take returns what was written since the last time.
func (b *syncBuffer) take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.text.Reset()
	return b.text.String()
}

func newWorld(t testing.TB) *world {
	w := &world{TB: t, now: time.Now()}
	a, err := pki.NewAuthority(w.now)
	require.NoError(t, err)
	root := attest.FingerprintOf(a.Root())
	secret, err := a.Derive("kms")
	require.NoError(t, err)
	w.authority = a
	w.config = kms.Config{
		Dir: t.TempDir(), Owner: secret, Roots: []attest.Fingerprint{root}, RoleARN: nsm.DefaultRoleARN, Clock: w.clock,
		Log: slog.New(slog.NewTextHandler(&w.log, nil)),
	}
	w.open()
	server := httptest.NewServer(w)
	t.Cleanup(func() { server.Close(); w.service.Close() })
	w.url = server.URL
	return w
}

func (w *world) open() {
	var err error
	w.service, err = kms.Open(w.config)
	require.NoError(w, err)
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// client is the SDK's. With a session token it is a role's, else the administrator's.
func (w *world) client(token string) *sdk.Client {
	return sdk.New(sdk.Options{
		Region:           "us-east-1",
		BaseEndpoint:     aws.String(w.url),
		Credentials:      credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "any", token),
		RetryMaxAttempts: 1,
	})
}

func (w *world) createKey(policy string) string {
	w.Helper()
	in := &sdk.CreateKeyInput{}
	if policy != "" {
		in.Policy = aws.String(policy)
	}
	out, err := w.client("").CreateKey(w.ctx(), in)
	require.NoError(w, err)
	return *out.KeyMetadata.KeyId
}

func (w *world) ctx() context.Context { return context.Background() }

func (w *world) encrypt(keyID string, text string) []byte {
	w.Helper()
	out, err := w.client("").Encrypt(w.ctx(), &sdk.EncryptInput{KeyId: &keyID, Plaintext: []byte(text)})
	require.NoError(w, err)
	return out.CiphertextBlob
}

// refuses checks that an error is of a name, as the SDK reads it.
func (w *world) refuses(err error, name string, says ...string) {
	w.Helper()
	var api smithy.APIError
	require.True(w, errors.As(err, &api), "%v", err)
	require.Equal(w, name, api.ErrorCode(), "%v", err)
	for _, text := range says {
		require.Contains(w, api.ErrorMessage(), text)
	}
}

// enclave is one with an NSM of its own and a key pair.
type enclave struct {
	testing.TB
	nsm *nsm.NSM
	key *rsa.PrivateKey
}

// enclaveKey is made once; it takes a while.
var enclaveKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

func digest(b byte) eif.Digest { return eif.Digest(bytes.Repeat([]byte{b}, 48)) }

// enclave starts one whose PCR0 is 48 times a byte.
func (w *world) enclave(pcr0 byte, changes ...func(*nsm.Config)) *enclave {
	w.Helper()
	instance, err := pki.NewInstance(w.authority, pki.Profile{Clock: w.clock})
	require.NoError(w, err)
	c := nsm.Config{Enclave: instance.Enclave(1), Measurements: eif.Measurements{PCR0: digest(pcr0)}, RoleARN: nsm.DefaultRoleARN}
	for _, change := range changes {
		change(&c)
	}
	key, err := enclaveKey()
	require.NoError(w, err)
	return &enclave{w.TB, nsm.New(c), key}
}

// recipient is the parameter of that name with a new document.
func (e *enclave) recipient() *types.RecipientInfo {
	e.Helper()
	public, err := x509.MarshalPKIXPublicKey(e.key.Public())
	require.NoError(e, err)
	return e.recipientFor(public)
}

func (e *enclave) recipientFor(public []byte) *types.RecipientInfo {
	e.Helper()
	signed, err := e.nsm.Attestation(nil, nil, public)
	require.NoError(e, err)
	return &types.RecipientInfo{AttestationDocument: signed, KeyEncryptionAlgorithm: types.KeyEncryptionMechanismRsaesOaepSha256}
}

// open opens a CiphertextForRecipient as an enclave with EdgeBit's SDK does.
func (e *enclave) open(enveloped []byte) []byte {
	e.Helper()
	secret, err := cms.DecryptEnvelopedKey(e.key, enveloped)
	require.NoError(e, err)
	return secret
}
