package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/eif"
)

// identity is a key and its certificate, in files.
type identity struct{ key, certificate string }

// identity makes one in the user's folder.
func (u *user) identity(name string, key crypto.Signer, from, to time.Time) identity {
	u.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: to,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(u, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(u, err)
	return identity{
		u.file(name+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})),
		u.file(name+".pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
	}
}

// valid makes an identity that is valid today, on a curve.
func (u *user) valid(name string, curve elliptic.Curve) identity {
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	require.NoError(u, err)
	return u.identity(name, key, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
}

// file writes a file in the user's folder.
func (u *user) file(name string, content []byte) string {
	u.Helper()
	path := filepath.Join(u.dir, name)
	require.NoError(u, os.WriteFile(path, content, 0o600))
	return path
}

// image copies an EIF of eif_build's into the user's folder.
func (u *user) image(name string) string {
	u.Helper()
	content, err := os.ReadFile(filepath.Join("../../eif/testdata", name))
	require.NoError(u, err)
	return u.file(name, content)
}

func (u *user) describeEIF(path string) (d eif.Description) {
	u.Helper()
	require.NoError(u, json.Unmarshal([]byte(u.must("describe-eif", "--eif-path", path)), &d))
	return d
}

func TestImagesAreSignedAndSignedAgain(t *testing.T) {
	u := newUser(t)
	path := u.image("two.eif")
	before := u.describeEIF(path)
	for name, curve := range map[string]elliptic.Curve{"p256": elliptic.P256(), "p384": elliptic.P384(), "p521": elliptic.P521()} {
		id := u.valid(name, curve)
		var printed built
		require.NoError(t, json.Unmarshal([]byte(
			u.must("sign-eif", "--eif-path", path, "--signing-certificate", id.certificate, "--private-key", id.key)), &printed))
		d := u.describeEIF(path)
		require.True(t, d.IsSigned)
		require.True(t, *d.SignatureCheck)
		require.Equal(t, name, d.Certificate.Issuer["commonName"])
		require.Equal(t, printed.Measurements, d.Measurements)
		require.Equal(t, before.Measurements.PCR0, d.Measurements.PCR0)
		var pcr8 map[string]string
		require.NoError(t, json.Unmarshal([]byte(u.must("pcr", "--signing-certificate", id.certificate)), &pcr8))
		require.Equal(t, map[string]string{"PCR8": d.Measurements.PCR8.String()}, pcr8)
	}
	left, err := filepath.Glob(filepath.Join(u.dir, ".*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

// beSigner makes the test binary a signer command with the key in the file that it names.
const beSigner = "NESIM_TEST_BE_SIGNER"

// signElsewhere does what --signer-command asks of a command.
func signElsewhere(path string) {
	must := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	text, err := os.ReadFile(path)
	must(err)
	key, err := eif.ParsePrivateKey(text)
	must(err)
	line, err := io.ReadAll(os.Stdin)
	must(err)
	digest, err := hex.DecodeString(strings.TrimSpace(string(line)))
	must(err)
	signature, err := key.Sign(rand.Reader, digest, nil)
	must(err)
	os.Stdout.Write(signature)
}

func TestACommandSignsInPlaceOfAKey(t *testing.T) {
	u := newUser(t)
	path, id := u.image("two.eif"), u.valid("elsewhere", elliptic.P384())
	sign := []string{"sign-eif", "--eif-path", path, "--signing-certificate", id.certificate, "--signer-command"}
	self, err := os.Executable()
	require.NoError(t, err)
	signer := func(key string) string { return beSigner + "=" + key + " " + self }
	u.must(append(sign, `test "$NESIM_DIGEST_ALGORITHM" = SHA-384 && `+signer(id.key))...)
	require.True(t, *u.describeEIF(path).SignatureCheck)

	want, err := os.ReadFile(path)
	require.NoError(t, err)
	for command, tells := range map[string]string{
		"echo no token >&2; false":                    "no token",
		"echo nonsense":                               "not a DER signature",
		signer(u.valid("other", elliptic.P384()).key): "by the certificate's key",
	} {
		told := u.refused(append(sign, command)...)
		require.Contains(t, told, "[E60]")
		require.Contains(t, told, tells)
		got, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, want, got, "the image has changed")
	}
}

func TestWhatCannotSignIsRefused(t *testing.T) {
	u := newUser(t)
	path := u.image("two.eif")
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	now := time.Now()
	a, b, withRSA := u.valid("a", elliptic.P384()), u.valid("b", elliptic.P384()), u.identity("rsa", key, now, now.Add(time.Hour))
	for _, test := range []struct{ certificate, key, tells string }{
		{withRSA.certificate, withRSA.key, "use P-256, P-384 or P-521"},
		{a.certificate, b.key, "another key"},
		{a.key, a.key, "no certificate"},
		{a.certificate, a.certificate, "no unencrypted private key"},
	} {
		told := u.refused("sign-eif", "--eif-path", path, "--signing-certificate", test.certificate, "--private-key", test.key)
		require.Contains(t, told, "[E60]")
		require.Contains(t, told, test.tells)
	}
	require.False(t, u.describeEIF(path).IsSigned)
	require.Contains(t, u.refused("sign-eif", "--eif-path", u.file("no.eif", []byte("none")), "--signing-certificate", a.certificate, "--private-key", a.key), "[E35]")
}

func TestCertificatesOutOfTheirDatesAreToldAlike(t *testing.T) {
	u := newUser(t)
	for name, test := range map[string]struct {
		from, to time.Duration
		tells    string
	}{
		"expired": {-2 * time.Hour, -time.Hour, "has expired"},
		"early":   {time.Hour, 2 * time.Hour, "is not yet valid"},
	} {
		key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		require.NoError(t, err)
		path := u.image("two.eif")
		id := u.identity(name, key, time.Now().Add(test.from), time.Now().Add(test.to))
		_, warning, err := u.run("", "sign-eif", "--eif-path", path, "--signing-certificate", id.certificate, "--private-key", id.key)
		require.NoError(t, err)
		require.Contains(t, warning, test.tells)

		described := u.refused("describe-eif", "--eif-path", path)
		require.Contains(t, described, test.tells)
		require.Contains(t, described, "[E59]")
		require.Equal(t, described, u.refused("run-enclave", "--eif-path", path, "--cpu-count", "2", "--memory", "128"))
		require.Empty(t, u.processes("qemu"))
	}
}

func TestPCRsOfFiles(t *testing.T) {
	u := newUser(t)
	// As the specification has it: SHA-384 of 48 zero bytes and the SHA-384 of "abc".
	var got map[string]eif.Digest
	require.NoError(t, json.Unmarshal([]byte(u.must("pcr", "--input", u.file("abc", []byte("abc")))), &got))
	content := crypto.SHA384.New()
	content.Write([]byte("abc"))
	want := crypto.SHA384.New()
	want.Write(content.Sum(make([]byte, 48)))
	require.Equal(t, map[string]eif.Digest{"PCR": eif.Digest(want.Sum(nil))}, got)
}
