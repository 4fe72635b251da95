package pki_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/attest"
	"github.com/nesim/nesim/attest/pki"
)

// clock is a clock that tests set.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

var start = time.Date(2026, 3, 1, 12, 0, 0, 250e6, time.UTC)

const uid = 0x0198_1234_5678_9abc

// newEnclave makes an enclave under a root of its own.
func newEnclave(t testing.TB, p pki.Profile) (*pki.Authority, *pki.Enclave) {
	a, err := pki.NewAuthority(start)
	require.NoError(t, err)
	i, err := pki.NewInstance(a, p)
	require.NoError(t, err)
	return a, i.Enclave(uid)
}

// chain parses a credential's certificates, root first.
func chain(t testing.TB, c *pki.Credential) (certs []*x509.Certificate) {
	for _, der := range append(append([][]byte{}, c.CABundle...), c.Certificate) {
		require.LessOrEqual(t, len(der), attest.MaxCertificate)
		cert, err := x509.ParseCertificate(der)
		require.NoError(t, err)
		certs = append(certs, cert)
	}
	return certs
}

func TestTheChainHasTheProfileOfRealOnes(t *testing.T) {
	c := &clock{now: start}
	a, e := newEnclave(t, pki.Profile{Region: "eu-central-1", InstanceID: "i-0123456789abcdef0", Clock: c.Now})
	credential, err := e.Credential()
	require.NoError(t, err)
	certs := chain(t, credential)
	require.Len(t, certs, 5)
	require.True(t, certs[0].Equal(a.Root()))

	const signCert, signCRL, sign = x509.KeyUsageCertSign, x509.KeyUsageCRLSign, x509.KeyUsageDigitalSignature
	for i, want := range []struct {
		name    string
		usage   x509.KeyUsage
		path    int
		from    time.Duration
		to      time.Duration
		serials int // most bytes
	}{
		{"nesim.nitro-enclaves", sign | signCert | signCRL, -1, 0, 0, 16},
		{".eu-central-1.nesim.nitro-enclaves", sign | signCert | signCRL, 2, -time.Minute, 20*24*time.Hour + time.Hour, 16},
		{".zonal.eu-central-1.nesim.nitro-enclaves", sign | signCert | signCRL, 1, -time.Minute, 5*24*time.Hour + 18*time.Hour, 16},
		{"i-0123456789abcdef0.eu-central-1.nesim.nitro-enclaves", signCert, 0, -time.Minute, 24 * time.Hour, 20},
		{"i-0123456789abcdef0-enc0198123456789abc.eu-central-1.nesim", sign | x509.KeyUsageContentCommitment, -1, -3 * time.Second, 3 * time.Hour, 16},
	} {
		cert := certs[i]
		require.True(t, strings.HasSuffix(cert.Subject.CommonName, want.name), cert.Subject.CommonName)
		require.Equal(t, []string{"nesim"}, cert.Subject.Organization)
		require.Equal(t, []string{"Simulated"}, cert.Subject.OrganizationalUnit)
		require.Equal(t, []string{"US"}, cert.Subject.Country)
		require.Equal(t, want.usage, cert.KeyUsage)
		require.True(t, cert.BasicConstraintsValid)
		require.Equal(t, i < 4, cert.IsCA)
		require.Equal(t, want.path, cert.MaxPathLen)
		require.Equal(t, x509.ECDSAWithSHA384, cert.SignatureAlgorithm)
		require.Equal(t, elliptic.P384(), cert.PublicKey.(*ecdsa.PublicKey).Curve)
		require.LessOrEqual(t, cert.SerialNumber.BitLen(), want.serials*8-1)
		require.Equal(t, 1, cert.SerialNumber.Sign())
		if i > 0 {
			require.NoError(t, cert.CheckSignatureFrom(certs[i-1]))
			require.Equal(t, certs[i-1].RawSubject, cert.RawIssuer)
			require.Equal(t, start.Add(want.from).Truncate(time.Second), cert.NotBefore)
			require.Equal(t, start.Add(want.to).Truncate(time.Second), cert.NotAfter)
		}
	}
	require.Equal(t, 30, certs[0].NotAfter.Year()-certs[0].NotBefore.Year())
	require.True(t, credential.Key.Public().(*ecdsa.PublicKey).Equal(certs[4].PublicKey))
}

func TestALeafIsRenewedWhileItsEnclaveRuns(t *testing.T) {
	c := &clock{now: start}
	_, e := newEnclave(t, pki.Profile{Clock: c.Now})
	first, err := e.Credential()
	require.NoError(t, err)
	c.advance(2 * time.Hour)
	same, err := e.Credential()
	require.NoError(t, err)
	require.Same(t, first, same)
	for range 40 { // five days: every level but the region is made anew
		c.advance(3 * time.Hour)
		credential, err := e.Credential()
		require.NoError(t, err)
		require.NotEqual(t, first.Certificate, credential.Certificate)
		for _, cert := range chain(t, credential) {
			require.False(t, c.Now().Before(cert.NotBefore))
			require.False(t, c.Now().Add(time.Hour).After(cert.NotAfter.Add(time.Second)))
		}
	}
}

func TestAClockSetBackGetsCertificatesOfItsTime(t *testing.T) {
	c := &clock{now: start}
	_, e := newEnclave(t, pki.Profile{Clock: c.Now})
	for _, back := range []time.Duration{0, time.Hour, 365 * 24 * time.Hour} {
		c.advance(-back)
		credential, err := e.Credential()
		require.NoError(t, err)
		for _, cert := range chain(t, credential) {
			require.False(t, c.Now().Before(cert.NotBefore))
			require.False(t, c.Now().After(cert.NotAfter))
		}
	}
}

func TestALeafMayBeValidForSeconds(t *testing.T) {
	c := &clock{now: start}
	_, e := newEnclave(t, pki.Profile{Clock: c.Now, LeafValidity: 3 * time.Second})
	credential, err := e.Credential()
	require.NoError(t, err)
	require.Equal(t, start.Add(3*time.Second).Truncate(time.Second), chain(t, credential)[4].NotAfter)
}

func TestOneEnclaveAsksFromManyGoroutines(t *testing.T) {
	_, e := newEnclave(t, pki.Profile{})
	var wg sync.WaitGroup
	var got [8]*pki.Credential
	for i := range got {
		wg.Go(func() { got[i], _ = e.Credential() })
	}
	wg.Wait()
	for _, c := range got {
		require.NotNil(t, c)
		require.Same(t, got[0], c)
	}
}

func TestProfilesThatMakeNoSenseAreRefused(t *testing.T) {
	a, err := pki.NewAuthority(start)
	require.NoError(t, err)
	for _, p := range []pki.Profile{
		{Region: "US East"}, {Region: "a-region-of-too-many-letters"}, {InstanceID: "0123"}, {InstanceID: "i-\n"},
		{InstanceID: "i-0123456789abcdef0123"}, {LeafValidity: time.Millisecond}, {LeafValidity: 25 * time.Hour},
		{LeafValidity: -time.Hour},
	} {
		_, err := pki.NewInstance(a, p)
		require.Error(t, err, "%+v", p)
	}
}

func TestTheUsersRootIsMadeOnceAndIsPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "nesim")
	var wg sync.WaitGroup
	var roots [8][]byte
	for i := range roots {
		wg.Go(func() {
			if a, err := pki.Open(dir); err == nil {
				roots[i] = a.Root().Raw
			}
		})
	}
	wg.Wait()
	require.NotNil(t, roots[0])
	for _, root := range roots {
		require.Equal(t, roots[0], root)
	}
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, files, 1, "nothing is left behind")
	info, err := files[0].Info()
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
	info, err = os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
}

func TestARootThatOthersCanReadOrThatIsDamagedIsRefused(t *testing.T) {
	dir := t.TempDir()
	_, err := pki.Open(dir)
	require.NoError(t, err)
	path := filepath.Join(dir, "attestation-root.pem")
	require.NoError(t, os.Chmod(path, 0o640))
	_, err = pki.Open(dir)
	require.ErrorContains(t, err, "chmod 600")
	require.NoError(t, os.Chmod(path, 0o600))

	for _, text := range []string{"", "nonsense", strings.Repeat("x", 1<<17)} {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		_, err = pki.Open(dir)
		require.ErrorContains(t, err, path)
	}
}

// ownCA makes a CA with openssl's usual contents.
func ownCA(t testing.TB, change func(*x509.Certificate)) (certPEM, keyPEM []byte) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "my CA"}, BasicConstraintsValid: true, IsCA: true,
		NotBefore: start.Add(-time.Hour), NotAfter: start.Add(24 * 365 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	sec1, err := x509.MarshalECPrivateKey(key)
	require.NoError(t, err)
	certPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM = append([]byte("-----BEGIN EC PARAMETERS-----\nBgUrgQQAIg==\n-----END EC PARAMETERS-----\n"),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1})...)
	return certPEM, keyPEM
}

func TestAnAuthorityOfTheUsersOwn(t *testing.T) {
	certPEM, keyPEM := ownCA(t, func(*x509.Certificate) {})
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "key.pem")
	require.NoError(t, os.WriteFile(certFile, certPEM, 0o644))
	require.NoError(t, os.WriteFile(keyFile, keyPEM, 0o600))
	a, err := pki.LoadAuthority(certFile, keyFile)
	require.NoError(t, err)
	require.Equal(t, "my CA", a.Root().Subject.CommonName)
	_, err = pki.LoadAuthority(keyFile, certFile)
	require.ErrorContains(t, err, "no certificate")
	_, err = pki.LoadAuthority(certFile, filepath.Join(dir, "none"))
	require.ErrorIs(t, err, os.ErrNotExist)

	i, err := pki.NewInstance(a, pki.Profile{Clock: (&clock{now: start}).Now})
	require.NoError(t, err)
	credential, err := i.Enclave(uid).Credential()
	require.NoError(t, err)
	require.NoError(t, chain(t, credential)[1].CheckSignatureFrom(a.Root()))
}

func TestAnAuthorityThatCannotIssueIsRefused(t *testing.T) {
	good, key := ownCA(t, func(*x509.Certificate) {})
	_, otherKey := ownCA(t, func(*x509.Certificate) {})
	_, err := pki.ParseAuthority(good, otherKey)
	require.ErrorContains(t, err, "not the certificate's")
	_, err = pki.ParseAuthority(good, bytes.ReplaceAll(key, []byte("EC PRIVATE"), []byte("ENCRYPTED PRIVATE")))
	require.ErrorContains(t, err, "no unencrypted private key")

	for want, change := range map[string]func(*x509.Certificate){
		"not a CA's":        func(c *x509.Certificate) { c.IsCA = false },
		"sign certificates": func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature },
		"pathLen":           func(c *x509.Certificate) { c.MaxPathLen = 2 },
		"1024":              func(c *x509.Certificate) { c.Subject.CommonName = strings.Repeat("x", 500) },
	} {
		cert, key := ownCA(t, change)
		_, err := pki.ParseAuthority(cert, key)
		require.ErrorContains(t, err, want)
	}
}

func TestSlotUIDsAreOfTheirTime(t *testing.T) {
	a := pki.NewSlotUID(start)
	require.Equal(t, uint64(start.UnixMilli()), a>>16)
}
