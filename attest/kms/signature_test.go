package kms_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	sdk "github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/attest/kms"
)

var (
	alice     = kms.AccessKey{ID: "AKIAALICE", Secret: "a/secret+of:alice"}
	temporary = kms.AccessKey{ID: "ASIAROLE", Secret: "temporary"}
)

// signedWorld is one whose service checks signatures.
func signedWorld(t testing.TB) *world {
	w := newWorld(t)
	require.NoError(t, w.service.Close())
	w.config.AccessKeys = []kms.AccessKey{alice, temporary}
	w.open()
	return w
}

// as is the SDK's client with credentials.
func (w *world) as(region, id, secret, token string) *sdk.Client {
	return sdk.New(sdk.Options{
		Region: region, BaseEndpoint: aws.String(w.url), RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(id, secret, token),
	})
}

func TestSignaturesOfTheSDKAreAccepted(t *testing.T) {
	w := signedWorld(t)
	c := w.as("us-east-1", alice.ID, alice.Secret, "")
	made, err := c.CreateKey(t.Context(), &sdk.CreateKeyInput{Policy: aws.String(enclavePolicy(1))})
	require.NoError(t, err)
	encrypted, err := c.Encrypt(t.Context(), &sdk.EncryptInput{KeyId: made.KeyMetadata.KeyId, Plaintext: []byte("a secret")})
	require.NoError(t, err)
	role := w.as("us-east-1", temporary.ID, temporary.Secret, roleToken)
	opened, err := role.Decrypt(t.Context(), &sdk.DecryptInput{CiphertextBlob: encrypted.CiphertextBlob, Recipient: w.enclave(1).recipient()})
	require.NoError(t, err)
	require.NotEmpty(t, opened.CiphertextForRecipient)
	_, err = role.Encrypt(t.Context(), &sdk.EncryptInput{KeyId: made.KeyMetadata.KeyId, Plaintext: []byte("x")})
	w.refuses(err, "AccessDeniedException", "role/nesim")
}

func TestCredentialsThatAreNotKnownAreRefused(t *testing.T) {
	w := signedWorld(t)
	for _, test := range []struct{ region, id, secret, token, name, says string }{
		{"us-east-1", alice.ID, "a secret of alice", "", "InvalidSignatureException", "does not match"},
		{"us-east-1", "AKIABOB", alice.Secret, "", "UnrecognizedClientException", "security token"},
		{"us-east-1", temporary.ID, temporary.Secret, "", "UnrecognizedClientException", "security token"},
		{"us-east-1", temporary.ID, alice.Secret, roleToken, "InvalidSignatureException", "does not match"},
		{"eu-west-1", alice.ID, alice.Secret, "", "InvalidSignatureException", "valid region"},
	} {
		_, err := w.as(test.region, test.id, test.secret, test.token).ListKeys(t.Context(), &sdk.ListKeysInput{})
		w.refuses(err, test.name, test.says)
		line := w.log.take()
		require.Contains(t, line, "denied")
		require.Equal(t, 1, strings.Count(line, "\n"))
		require.NotContains(t, line, alice.Secret)
	}
}

// signed is a request signed by the SDK's signer, for which it is a moment away from now.
func (w *world) signed(body string, away time.Duration, changes ...func(*http.Request)) *http.Request {
	w.Helper()
	r := httptest.NewRequest("POST", "http://localhost/", strings.NewReader(body))
	r.Header.Set("X-Amz-Target", "TrentService.ListKeys")
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	r.Header.Add("X-Amz-Note", "two  values ")
	r.Header.Add("X-Amz-Note", " of a header")
	for _, change := range changes {
		change(r)
	}
	sum := sha256.Sum256([]byte(body))
	err := v4.NewSigner().SignHTTP(context.Background(), aws.Credentials{AccessKeyID: alice.ID, SecretAccessKey: alice.Secret}, r,
		hex.EncodeToString(sum[:]), "kms", "us-east-1", time.Now().Add(away))
	require.NoError(w, err)
	return r
}

func (w *world) answer(r *http.Request) *httptest.ResponseRecorder {
	recorder := httptest.NewRecorder()
	w.service.ServeHTTP(recorder, r)
	return recorder
}

func TestWhateverIsChangedInASignedRequestIsNoticed(t *testing.T) {
	w := signedWorld(t)
	require.Equal(t, 200, w.answer(w.signed(`{}`, 0)).Code)
	require.Equal(t, 200, w.answer(w.signed(`{}`, 4*time.Minute)).Code)
	require.Equal(t, 200, w.answer(w.signed(`{}`, -4*time.Minute)).Code)
	require.Equal(t, 200, w.answer(w.signed(`{}`, 0, func(r *http.Request) { r.ContentLength = 0 })).Code, "a length that is not signed")
	set := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	replace := func(old, with string) func(*http.Request) {
		return func(r *http.Request) {
			was := r.Header.Get("Authorization")
			r.Header.Set("Authorization", strings.Replace(was, old, with, 1))
			require.NotEqual(t, was, r.Header.Get("Authorization"), old)
		}
	}
	today := time.Now().UTC().Format("20060102")
	for what, test := range map[string]struct {
		change func(*http.Request)
		name   string
	}{
		"body":             {func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader(`{"Limit":1}`)) }, "InvalidSignatureException"},
		"empty body":       {func(r *http.Request) { r.Body = http.NoBody }, "InvalidSignatureException"},
		"operation":        {set("X-Amz-Target", "TrentService.CreateKey"), "InvalidSignatureException"},
		"host":             {func(r *http.Request) { r.Host = "127.0.0.1" }, "InvalidSignatureException"},
		"length":           {func(r *http.Request) { r.ContentLength = 3 }, "InvalidSignatureException"},
		"type":             {set("Content-Type", "text/plain"), "InvalidSignatureException"},
		"header":           {func(r *http.Request) { r.Header.Add("X-Amz-Note", "more") }, "InvalidSignatureException"},
		"new header":       {set("X-Amz-Other", "x"), "InvalidSignatureException"},
		"a session token":  {set("X-Amz-Security-Token", roleToken), "InvalidSignatureException"},
		"time":             {set("X-Amz-Date", time.Now().Add(time.Second).UTC().Format("20060102T150405Z")), "InvalidSignatureException"},
		"another day":      {set("X-Amz-Date", "20200101T000000Z"), "InvalidSignatureException"},
		"no time":          {set("X-Amz-Date", "now"), "IncompleteSignatureException"},
		"signature":        {replace("Signature=", "Signature=0"), "IncompleteSignatureException"},
		"short signature":  {func(r *http.Request) { r.Header.Set("Authorization", r.Header.Get("Authorization")[:150]) }, "IncompleteSignatureException"},
		"host not signed":  {replace("host;", ""), "InvalidSignatureException"},
		"date not signed":  {replace(";x-amz-date", ""), "InvalidSignatureException"},
		"target unsigned":  {replace(";x-amz-target", ""), "InvalidSignatureException"},
		"region":           {replace("us-east-1", "us-east-2"), "InvalidSignatureException"},
		"service":          {replace("/kms/", "/s3/"), "InvalidSignatureException"},
		"terminator":       {replace("aws4_request", "aws5_request"), "InvalidSignatureException"},
		"date of scope":    {replace(today, "20200101"), "InvalidSignatureException"},
		"algorithm":        {replace("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"), "IncompleteSignatureException"},
		"key ID":           {replace(alice.ID, "AKIABOB"), "UnrecognizedClientException"},
		"no authorization": {func(r *http.Request) { r.Header.Del("Authorization") }, "MissingAuthenticationTokenException"},
		"Basic":            {set("Authorization", "Basic QUtJQTph"), "IncompleteSignatureException"},
		"two":              {func(r *http.Request) { r.Header.Add("Authorization", r.Header.Get("Authorization")) }, "IncompleteSignatureException"},
		"query":            {func(r *http.Request) { r.URL.RawQuery = "X-Amz-Signature=00" }, "IncompleteSignatureException"},
		"path":             {func(r *http.Request) { r.URL.Path = "/x" }, "IncompleteSignatureException"},
	} {
		r := w.signed(`{}`, 0)
		test.change(r)
		got := w.answer(r)
		require.Equal(t, 400, got.Code, what)
		require.Contains(t, got.Body.String(), `"__type":"`+test.name+`"`, what)
		require.Equal(t, 1, strings.Count(w.log.take(), "\n"), what)
	}
	for _, away := range []time.Duration{-6 * time.Minute, 6 * time.Minute} {
		got := w.answer(w.signed(`{}`, away))
		require.Contains(t, got.Body.String(), "InvalidSignatureException")
		require.Regexp(t, "Signature expired|not yet current", got.Body.String())
	}
}

func TestHeadersThatTheSDKDoesNotSignMayBeSigned(t *testing.T) {
	w := signedWorld(t)
	r := w.signed(`{}`, 0)
	r.Header.Set("User-Agent", "another  client")
	require.Equal(t, 200, w.answer(r).Code, "unsigned")

	was := r.Header.Get("Authorization")
	r.Header.Set("Authorization", strings.Replace(was, "host;", "host;user-agent;", 1))
	require.Contains(t, w.answer(r).Body.String(), "InvalidSignatureException", "it was not signed")
}

func TestAccessKeysAreRead(t *testing.T) {
	key, err := kms.ParseAccessKey("AKIAALICE:a/secret+of:alice")
	require.NoError(t, err)
	require.Equal(t, alice, key)
	for _, bad := range []string{"", "id", "id:", ":secret", "an id:secret", "id:a secret", "id:s\n", strings.Repeat("x", 129) + ":s", "id:" + strings.Repeat("s", 129)} {
		_, err := kms.ParseAccessKey(bad)
		require.ErrorContains(t, err, "want ID:SECRET", "%q", bad)
		require.NotContains(t, err.Error(), "sss")
	}
}

// FuzzSignature sends any Authorization header with any headers. Nobody without the secret gets an answer.
func FuzzSignature(f *testing.F) {
	w := signedWorld(f)
	r := w.signed(`{}`, 0)
	f.Add(r.Header.Get("Authorization"), r.Header.Get("X-Amz-Date"), "X-Amz-Target", "TrentService.ListKeys", `{}x`)
	f.Add("AWS4-HMAC-SHA256 Credential=AKIAALICE/20260101/us-east-1/kms/aws4_request, SignedHeaders=host;x-amz-date;x-amz-target, Signature="+strings.Repeat("0", 64),
		"20260101T000000Z", "Transfer-Encoding", "chunked", ``)
	f.Fuzz(func(t *testing.T, authorization, date, name, value, body string) {
		r := httptest.NewRequest("POST", "http://localhost/", bytes.NewReader([]byte(body)))
		r.Header.Set("X-Amz-Target", "TrentService.ListKeys")
		r.Header.Set("X-Amz-Date", date)
		r.Header.Add(name, value)
		r.Header.Set("Authorization", authorization)
		got := w.answer(r)
		require.NotEqual(t, 200, got.Code)
		require.NotContains(t, got.Body.String(), "KMSInternalException")
		require.LessOrEqual(t, strings.Count(w.log.take(), "\n"), 1)
	})
}

func TestOnlyNamesOfTheServiceAreServed(t *testing.T) {
	w := newWorld(t)
	require.NoError(t, w.service.Close())
	w.config.Hosts = []string{"kms", "10.1.2.3"}
	w.open()
	from := func(local net.Addr) func(host string) int {
		return func(host string) int {
			r := httptest.NewRequest("POST", "/", strings.NewReader(`{}`))
			r.Header.Set("X-Amz-Target", "TrentService.ListKeys")
			r.Host = host
			return w.answer(r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, local))).Code
		}
	}
	tcp := from(&net.TCPAddr{IP: net.IPv4(192, 168, 1, 2), Port: 4599})
	for _, host := range []string{
		"127.0.0.1:4599", "127.0.0.1", "[::1]:4599", "[::1]", "localhost:4599", "LocalHost", "localhost.", "kms.localhost:4599", "127.1.2.3:1",
		"192.168.1.2:4599", "[::ffff:192.168.1.2]:4599", "kms:4599", "KMS", "10.1.2.3:80", "kms.us-east-1.amazonaws.com", "kms-fips.us-gov-west-1.amazonaws.com:443",
	} {
		require.Equal(t, 200, tcp(host), host)
	}
	for _, host := range []string{
		"", "attacker.example:4599", "attacker.example", "localhost.attacker.example:4599", "kms.attacker.example", "notlocalhost", "192.168.1.3:4599", "0.0.0.0:4599",
		"kms.us-east-1.amazonaws.com.attacker.example", "x.amazonaws.com", "127.0.0.1.attacker.example", "attacker.example:127.0.0.1", "2130706433", "kms:x:y",
	} {
		require.Equal(t, 400, tcp(host), host)
		line := w.log.take()
		require.Contains(t, line, "Host header", host)
		require.Equal(t, 1, strings.Count(line, "\n"))
	}
	for _, local := range []net.Addr{&net.UnixAddr{Name: "kms.sock", Net: "unix"}, nil} {
		require.Equal(t, 200, from(local)("attacker.example"), fmt.Sprint(local))
	}
}
