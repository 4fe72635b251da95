package kms_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/attest/kms"
	"github.com/nesim/nesim/attest/nsm"
)

// ServeHTTP serves by the service that is open now.
func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) { w.service.ServeHTTP(rw, r) }

func TestAKeyIsCreatedAndDescribed(t *testing.T) {
	w := newWorld(t)
	c := w.client("")
	made, err := c.CreateKey(t.Context(), &sdk.CreateKeyInput{Description: aws.String("a key")})
	require.NoError(t, err)
	id := *made.KeyMetadata.KeyId
	require.Equal(t, "arn:aws:kms:us-east-1:123456789012:key/"+id, *made.KeyMetadata.Arn)

	for _, name := range []string{id, *made.KeyMetadata.Arn} {
		out, err := c.DescribeKey(t.Context(), &sdk.DescribeKeyInput{KeyId: &name})
		require.NoError(t, err)
		m := out.KeyMetadata
		require.Equal(t, id, *m.KeyId)
		require.Equal(t, "123456789012", *m.AWSAccountId)
		require.Equal(t, "a key", *m.Description)
		require.True(t, m.Enabled)
		require.Equal(t, types.KeyStateEnabled, m.KeyState)
		require.Equal(t, types.KeyUsageTypeEncryptDecrypt, m.KeyUsage)
		require.Equal(t, types.KeySpecSymmetricDefault, m.KeySpec)
		require.Equal(t, types.OriginTypeAwsKms, m.Origin)
		require.Equal(t, types.KeyManagerTypeCustomer, m.KeyManager)
		require.WithinDuration(t, w.clock(), *m.CreationDate, time.Second)
	}
	for name, errorName := range map[string]string{
		"11111111-2222-3333-4444-555555555555":            "NotFoundException",
		"arn:aws:kms:eu-west-1:123456789012:key/" + id:    "NotFoundException",
		"arn:aws:kms:us-east-1:123456789012:secret/" + id: "InvalidArnException",
		"alias/none":              "NotFoundException",
		strings.Repeat("x", 2049): "ValidationException",
	} {
		_, err := c.DescribeKey(t.Context(), &sdk.DescribeKeyInput{KeyId: &name})
		w.refuses(err, errorName)
	}
}

func TestOnlySymmetricKeysAreMade(t *testing.T) {
	w := newWorld(t)
	for _, in := range []*sdk.CreateKeyInput{
		{KeySpec: types.KeySpecRsa2048}, {KeyUsage: types.KeyUsageTypeSignVerify}, {Origin: types.OriginTypeExternal}, {MultiRegion: aws.Bool(true)},
	} {
		_, err := w.client("").CreateKey(t.Context(), in)
		w.refuses(err, "UnsupportedOperationException")
	}
	_, err := w.client(roleToken).CreateKey(t.Context(), &sdk.CreateKeyInput{})
	w.refuses(err, "AccessDeniedException", "role/nesim is not authorized to perform: kms:CreateKey")
}

func TestKeysAndAliasesAreListed(t *testing.T) {
	w := newWorld(t)
	c := w.client("")
	made := map[string]bool{}
	for range 5 {
		made[w.createKey("")] = true
	}
	pages := sdk.NewListKeysPaginator(c, &sdk.ListKeysInput{Limit: aws.Int32(2)})
	var id string
	for n := len(made); pages.HasMorePages(); n -= 2 {
		out, err := pages.NextPage(t.Context())
		require.NoError(t, err)
		require.Len(t, out.Keys, min(n, 2))
		for _, key := range out.Keys {
			id = *key.KeyId
			require.True(t, made[id])
			delete(made, id)
		}
	}
	require.Empty(t, made)
	_, err := c.ListKeys(t.Context(), &sdk.ListKeysInput{Marker: aws.String("none")})
	w.refuses(err, "InvalidMarkerException")

	alias := "alias/my/key"
	_, err = c.CreateAlias(t.Context(), &sdk.CreateAliasInput{AliasName: &alias, TargetKeyId: &id})
	require.NoError(t, err)
	_, err = c.CreateAlias(t.Context(), &sdk.CreateAliasInput{AliasName: &alias, TargetKeyId: &id})
	w.refuses(err, "AlreadyExistsException")
	_, err = c.CreateAlias(t.Context(), &sdk.CreateAliasInput{AliasName: aws.String("key"), TargetKeyId: &id})
	w.refuses(err, "InvalidAliasNameException")
	listed, err := c.ListAliases(t.Context(), &sdk.ListAliasesInput{KeyId: &id})
	require.NoError(t, err)
	require.Len(t, listed.Aliases, 1)
	require.Equal(t, id, *listed.Aliases[0].TargetKeyId)
	for _, name := range []string{alias, *listed.Aliases[0].AliasArn} {
		out, err := c.DescribeKey(t.Context(), &sdk.DescribeKeyInput{KeyId: &name})
		require.NoError(t, err)
		require.Equal(t, id, *out.KeyMetadata.KeyId)
	}
	_, err = c.DeleteAlias(t.Context(), &sdk.DeleteAliasInput{AliasName: &alias})
	require.NoError(t, err)
	_, err = c.DescribeKey(t.Context(), &sdk.DescribeKeyInput{KeyId: &alias})
	w.refuses(err, "NotFoundException")
}

func TestWhatIsEncryptedIsDecrypted(t *testing.T) {
	w := newWorld(t)
	c := w.client("")
	id, other := w.createKey(""), w.createKey("")
	context := map[string]string{"tenant": "1", "purpose": "test"}
	encrypted, err := c.Encrypt(t.Context(), &sdk.EncryptInput{KeyId: &id, Plaintext: []byte("a secret"), EncryptionContext: context})
	require.NoError(t, err)
	require.NotContains(t, string(encrypted.CiphertextBlob), "a secret")
	blob := encrypted.CiphertextBlob

	for _, keyID := range []*string{nil, &id, encrypted.KeyId} {
		out, err := c.Decrypt(t.Context(), &sdk.DecryptInput{CiphertextBlob: blob, EncryptionContext: context, KeyId: keyID})
		require.NoError(t, err)
		require.Equal(t, "a secret", string(out.Plaintext))
		require.Empty(t, out.CiphertextForRecipient)
		require.Equal(t, *encrypted.KeyId, *out.KeyId)
		require.Equal(t, types.EncryptionAlgorithmSpecSymmetricDefault, out.EncryptionAlgorithm)
	}
	for _, wrong := range []map[string]string{nil, {"tenant": "2", "purpose": "test"}, {"tenant": "1"}, {"tenant": "1purpose", "": "test"}} {
		_, err := c.Decrypt(t.Context(), &sdk.DecryptInput{CiphertextBlob: blob, EncryptionContext: wrong})
		w.refuses(err, "InvalidCiphertextException")
	}
	for i := range blob {
		changed := bytes.Clone(blob)
		changed[i] ^= 1
		_, err := c.Decrypt(t.Context(), &sdk.DecryptInput{CiphertextBlob: changed, EncryptionContext: context})
		require.Error(t, err, "byte %d", i)
	}
	_, err = c.Decrypt(t.Context(), &sdk.DecryptInput{CiphertextBlob: blob, EncryptionContext: context, KeyId: &other})
	w.refuses(err, "IncorrectKeyException")
	_, err = c.Decrypt(t.Context(), &sdk.DecryptInput{CiphertextBlob: []byte("nothing of ours")})
	w.refuses(err, "InvalidCiphertextException")
	_, err = c.Decrypt(t.Context(), &sdk.DecryptInput{CiphertextBlob: append([]byte("N11111111-2222-3333-4444-555555555555"), blob...)})
	w.refuses(err, "AccessDeniedException", "does not exist")
	_, err = c.Decrypt(t.Context(), &sdk.DecryptInput{CiphertextBlob: make([]byte, 6145)})
	w.refuses(err, "ValidationException")
	_, err = c.Encrypt(t.Context(), &sdk.EncryptInput{KeyId: &id, Plaintext: make([]byte, 4097)})
	w.refuses(err, "ValidationException")
	_, err = c.Encrypt(t.Context(), &sdk.EncryptInput{KeyId: &id, Plaintext: []byte("x"), EncryptionAlgorithm: types.EncryptionAlgorithmSpecRsaesOaepSha256})
	w.refuses(err, "InvalidKeyUsageException")
	_, err = c.Encrypt(t.Context(), &sdk.EncryptInput{KeyId: &id, Plaintext: []byte("x"), EncryptionContext: map[string]string{"a": strings.Repeat("x", 8192)}})
	w.refuses(err, "ValidationException")
	_, err = c.Encrypt(t.Context(), &sdk.EncryptInput{KeyId: &id, Plaintext: []byte("x"), DryRun: aws.Bool(true)})
	w.refuses(err, "DryRunOperationException")
}

func TestADisabledKeyIsNotUsed(t *testing.T) {
	w := newWorld(t)
	c := w.client("")
	id := w.createKey("")
	blob := w.encrypt(id, "a secret")
	_, err := c.DisableKey(t.Context(), &sdk.DisableKeyInput{KeyId: &id})
	require.NoError(t, err)
	_, err = c.Decrypt(t.Context(), &sdk.DecryptInput{CiphertextBlob: blob})
	w.refuses(err, "DisabledException")
	out, err := c.DescribeKey(t.Context(), &sdk.DescribeKeyInput{KeyId: &id})
	require.NoError(t, err)
	require.Equal(t, types.KeyStateDisabled, out.KeyMetadata.KeyState)
	_, err = c.EnableKey(t.Context(), &sdk.EnableKeyInput{KeyId: &id})
	require.NoError(t, err)
	_, err = c.Decrypt(t.Context(), &sdk.DecryptInput{CiphertextBlob: blob})
	require.NoError(t, err)
}

func TestDataKeysAndRandomBytesAreMade(t *testing.T) {
	w := newWorld(t)
	c := w.client("")
	id := w.createKey("")
	for size, in := range map[int]*sdk.GenerateDataKeyInput{
		32: {KeySpec: types.DataKeySpecAes256}, 16: {KeySpec: types.DataKeySpecAes128}, 1024: {NumberOfBytes: aws.Int32(1024)},
	} {
		in.KeyId = &id
		out, err := c.GenerateDataKey(t.Context(), in)
		require.NoError(t, err)
		require.Len(t, out.Plaintext, size)
		require.Empty(t, out.CiphertextForRecipient)
		opened, err := c.Decrypt(t.Context(), &sdk.DecryptInput{CiphertextBlob: out.CiphertextBlob})
		require.NoError(t, err)
		require.Equal(t, out.Plaintext, opened.Plaintext)
	}
	for _, in := range []*sdk.GenerateDataKeyInput{
		{}, {KeySpec: types.DataKeySpecAes256, NumberOfBytes: aws.Int32(1)}, {NumberOfBytes: aws.Int32(0)}, {NumberOfBytes: aws.Int32(1025)}, {KeySpec: "DES"},
	} {
		in.KeyId = &id
		_, err := c.GenerateDataKey(t.Context(), in)
		w.refuses(err, "ValidationException")
	}
	sealed, err := c.GenerateDataKeyWithoutPlaintext(t.Context(), &sdk.GenerateDataKeyWithoutPlaintextInput{KeyId: &id, KeySpec: types.DataKeySpecAes256})
	require.NoError(t, err)
	opened, err := c.Decrypt(t.Context(), &sdk.DecryptInput{CiphertextBlob: sealed.CiphertextBlob})
	require.NoError(t, err)
	require.Len(t, opened.Plaintext, 32)

	out, err := c.GenerateRandom(t.Context(), &sdk.GenerateRandomInput{NumberOfBytes: aws.Int32(48)})
	require.NoError(t, err)
	require.Len(t, out.Plaintext, 48)
	_, err = c.GenerateRandom(t.Context(), &sdk.GenerateRandomInput{})
	w.refuses(err, "ValidationException")
	_, err = c.GenerateRandom(t.Context(), &sdk.GenerateRandomInput{NumberOfBytes: aws.Int32(1), CustomKeyStoreId: aws.String("cks-1")})
	w.refuses(err, "CustomKeyStoreNotFoundException")
}

func TestKeysOutliveTheService(t *testing.T) {
	w := newWorld(t)
	id := w.createKey("")
	blob := w.encrypt(id, "a secret")
	_, err := w.client("").CreateAlias(t.Context(), &sdk.CreateAliasInput{AliasName: aws.String("alias/a"), TargetKeyId: &id})
	require.NoError(t, err)
	_, err = kms.Open(w.config)
	require.ErrorContains(t, err, "in use")

	require.NoError(t, w.service.Close())
	stray := filepath.Join(w.config.Dir, ".stray.part")
	require.NoError(t, os.WriteFile(stray, nil, 0o600))
	w.open()
	require.NoFileExists(t, stray)
	out, err := w.client("").Decrypt(t.Context(), &sdk.DecryptInput{CiphertextBlob: blob, KeyId: aws.String("alias/a")})
	require.NoError(t, err)
	require.Equal(t, "a secret", string(out.Plaintext))

	entries, err := os.ReadDir(w.config.Dir)
	require.NoError(t, err)
	require.Len(t, entries, 3, "lock, secret and key")
	for _, entry := range entries {
		info, err := entry.Info()
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode(), entry.Name())
		text, err := os.ReadFile(filepath.Join(w.config.Dir, entry.Name()))
		require.NoError(t, err)
		require.NotContains(t, string(text), "Policy")
	}
}

func TestKeyFilesThatAreNotAsTheyWereAreRefused(t *testing.T) {
	w := newWorld(t)
	first, second := w.createKey(""), w.createKey("")
	require.NoError(t, w.service.Close())
	file := func(id string) string { return filepath.Join(w.config.Dir, id+".key") }
	good, err := os.ReadFile(file(first))
	require.NoError(t, err)
	foreign, err := os.ReadFile(file(second))
	require.NoError(t, err)
	refused := func(says string) {
		t.Helper()
		s, err := kms.Open(w.config)
		require.ErrorContains(t, err, says)
		require.Nil(t, s)
		require.NotContains(t, err.Error(), "\n")
	}
	for i := 0; i < len(good); i += 7 {
		bad := bytes.Clone(good)
		bad[i] ^= 0x10
		require.NoError(t, os.WriteFile(file(first), bad, 0o600))
		refused(first)
	}
	for _, bad := range [][]byte{nil, good[:20], append(bytes.Clone(good), 0), foreign, make([]byte, 300<<10)} {
		require.NoError(t, os.WriteFile(file(first), bad, 0o600))
		refused(first)
	}
	require.NoError(t, os.WriteFile(file(first), good, 0o600))
	require.NoError(t, os.Chmod(file(first), 0o640))
	refused("chmod 600")
	require.NoError(t, os.Chmod(file(first), 0o600))

	w.config.Owner = []byte("another")
	refused("another root")
	w.config.Owner, err = w.authority.Derive("kms")
	require.NoError(t, err)
	secret := filepath.Join(w.config.Dir, "secret")
	require.NoError(t, os.Rename(secret, secret+".away"))
	refused("put it back")
	require.NoError(t, os.WriteFile(secret, []byte("short"), 0o600))
	refused("5 bytes")
	require.NoError(t, os.Rename(secret+".away", secret))
	w.open()
}

func TestManyRequestsAtOnce(t *testing.T) {
	w := newWorld(t)
	id := w.createKey("")
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			c := w.client("")
			alias := fmt.Sprintf("alias/%d", n)
			_, err := c.CreateAlias(t.Context(), &sdk.CreateAliasInput{AliasName: &alias, TargetKeyId: &id})
			require.NoError(t, err)
			encrypted, err := c.Encrypt(t.Context(), &sdk.EncryptInput{KeyId: &alias, Plaintext: []byte(alias)})
			require.NoError(t, err)
			_, err = c.CreateKey(t.Context(), &sdk.CreateKeyInput{})
			require.NoError(t, err)
			out, err := c.Decrypt(t.Context(), &sdk.DecryptInput{CiphertextBlob: encrypted.CiphertextBlob})
			require.NoError(t, err)
			require.Equal(t, alias, string(out.Plaintext))
		})
	}
	wg.Wait()
	require.NoError(t, w.service.Close())
	w.open()
	listed, err := w.client("").ListAliases(t.Context(), &sdk.ListAliasesInput{})
	require.NoError(t, err)
	require.Len(t, listed.Aliases, 8)
}

func TestBadConfigurationsAreRefused(t *testing.T) {
	for _, c := range []kms.Config{{Region: "US", RoleARN: nsm.DefaultRoleARN}, {}, {RoleARN: "role"}, {RoleARN: "arn:aws:iam::12:role/x"}} {
		c.Dir = t.TempDir()
		_, err := kms.Open(c)
		require.ErrorContains(t, err, "want")
	}
}

// post sends a request that no SDK would.
func (w *world) post(operation, body string, changes ...func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", "/", strings.NewReader(body))
	r.Header.Set("X-Amz-Target", "TrentService."+operation)
	for _, change := range changes {
		change(r)
	}
	recorder := httptest.NewRecorder()
	w.service.ServeHTTP(recorder, r)
	return recorder
}

// session makes a request one with temporary credentials.
func session(token string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("X-Amz-Security-Token", token) }
}

func TestMalformedRequestsAreRefused(t *testing.T) {
	w := newWorld(t)
	for _, test := range []struct {
		operation, body, name string
		status                int
	}{
		{"Decrypt", ``, "SerializationException", 400},
		{"Decrypt", `{`, "SerializationException", 400},
		{"Decrypt", `[]`, "SerializationException", 400},
		{"Decrypt", `{} {}`, "SerializationException", 400},
		{"Decrypt", `{"CiphertextBlob":"%%%"}`, "SerializationException", 400},
		{"Decrypt", `{"CiphertextBlob":5}`, "SerializationException", 400},
		{"Decrypt", `{"CiphertextBlob":"AAAA","Recipient":"x"}`, "SerializationException", 400},
		{"Decrypt", `null`, "ValidationException", 400},
		{"Decrypt", `{}`, "ValidationException", 400},
		{"Decrypt", `{"CiphertextBlob":"AAAA","Recipient":{}}`, "ValidationException", 400},
		{"GenerateRandom", `{"NumberOfBytes":-1}`, "ValidationException", 400},
		{"GenerateRandom", `{"NumberOfBytes":1e99}`, "SerializationException", 400},
		{"DescribeKey", `{"Other":1}`, "ValidationException", 400},
		{"Sign", `{}`, "UnknownOperationException", 400},
		{"", `{}`, "UnknownOperationException", 400},
		{"Encrypt", `{"Plaintext":"` + strings.Repeat("A", 2<<20) + `"}`, "RequestEntityTooLargeException", 413},
	} {
		got := w.post(test.operation, test.body)
		require.Equal(t, test.status, got.Code, "%s %.40s", test.operation, test.body)
		require.Contains(t, got.Body.String(), `"__type":"`+test.name+`"`, "%s %.40s", test.operation, test.body)
		require.Equal(t, "application/x-amz-json-1.1", got.Header().Get("Content-Type"))
		require.Len(t, got.Header().Get("X-Amzn-Requestid"), 36)
	}
	got := w.post("ListKeys", `{}`, func(r *http.Request) { r.Method = "GET" })
	require.Equal(t, 405, got.Code)
	got = w.post("ListKeys", `{}`, func(r *http.Request) { r.Header.Set("Origin", "http://127.0.0.1") })
	require.Equal(t, 400, got.Code)
	require.Contains(t, got.Body.String(), "browsers")
	got = w.post("ListKeys", `{}`, func(r *http.Request) { r.Header.Set("X-Amz-Target", "Other.ListKeys") })
	require.Contains(t, got.Body.String(), "UnknownOperationException")
	require.Equal(t, `{"Keys":[],"Truncated":false}`, w.post("ListKeys", `{}`).Body.String())
}
