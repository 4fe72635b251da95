package attest_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	other "github.com/alokmenghrajani/go-nitro-enclave-attestation-document"
	"github.com/hf/nitrite"
	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/attest"
)

// nitriteVerify is the verdict of github.com/hf/nitrite.
func (w *world) nitriteVerify(signed []byte) (*nitrite.Document, error) {
	roots := x509.NewCertPool()
	roots.AddCert(w.root)
	r, err := nitrite.Verify(signed, nitrite.VerifyOptions{Roots: roots, CurrentTime: w.now})
	if err != nil {
		return nil, err
	}
	return r.Document, nil
}

// otherVerify is the verdict of the verifier of the Veracruz project, which goes by today's clock.
func (w *world) otherVerify(signed []byte) (*other.AttestationDocument, error) {
	return other.AuthenticateDocument(signed, *w.root, true)
}

func TestOtherVerifiersAcceptOurDocuments(t *testing.T) {
	w := newWorld(t)
	for range 2 {
		signed := w.sign()
		n, err := w.nitriteVerify(signed)
		require.NoError(t, err)
		require.Equal(t, w.doc.ModuleID, n.ModuleID)
		require.Equal(t, w.doc.Timestamp, n.Timestamp)
		require.Equal(t, w.doc.PCRs[7], n.PCRs[7])
		require.Equal(t, w.doc.PublicKey, n.PublicKey)
		o, err := w.otherVerify(signed)
		require.NoError(t, err)
		require.Equal(t, w.doc.PCRs[7], o.PCRs[7])
		require.Equal(t, w.doc.Nonce, o.Nonce)

		_, err = newWorld(t).nitriteVerify(signed)
		require.Error(t, err, "another root")
		_, err = newWorld(t).otherVerify(signed)
		require.Error(t, err, "another root")
		w.doc.PublicKey, w.doc.UserData, w.doc.Nonce = nil, nil, nil
	}
}

func TestOtherVerifiersRefuseBadDocumentsToo(t *testing.T) {
	w := newWorld(t)
	for _, f := range badFields(w) {
		signed := w.signWith(f.name, f.value)
		_, err1 := w.nitriteVerify(signed)
		_, err2 := w.otherVerify(signed)
		require.False(t, err1 == nil && err2 == nil, "%s is a bad %T: %v", f.name, f.value, f.rule)
	}
	w.now = w.now.Add(24 * time.Hour)
	_, err := w.nitriteVerify(w.sign())
	require.Error(t, err, "expired")
}

func TestOtherVerifiersRefuseEveryChangedByte(t *testing.T) {
	w := newWorld(t)
	good := w.sign()
	for i := 0; i < len(good); i += step() {
		bad := bytes.Clone(good)
		bad[i] ^= 1 << (i % 8)
		if _, err := w.nitriteVerify(bad); err != nil {
			continue
		}
		_, err := w.otherVerify(bad)
		require.Error(t, err, "byte %d is %#x", i, bad[i])
	}
}

func TestTheRootOfRealEnclavesIsKnown(t *testing.T) {
	block, _ := pem.Decode([]byte(nitrite.DefaultCARoots))
	root, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	require.Equal(t, attest.AWSRoot, attest.FingerprintOf(root))
	require.Equal(t, "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b", attest.AWSRoot.String())
}

// realDocument is a document of a real enclave, which the verifier's module brings along.
func realDocument(t testing.TB) []byte {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}",
		"github.com/alokmenghrajani/go-nitro-enclave-attestation-document").Output()
	require.NoError(t, err)
	signed, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "test", "aws_nitro_document.cbor"))
	require.NoError(t, err)
	return signed
}

func TestARealDocumentIsAcceptedAtItsTime(t *testing.T) {
	signed := realDocument(t)
	d, err := attest.Decode(signed)
	require.NoError(t, err)
	at := time.UnixMilli(int64(d.Timestamp))
	real := attest.Expect{Roots: []attest.Fingerprint{attest.AWSRoot}, At: at}
	verified, err := attest.Verify(signed, real)
	require.NoError(t, err)
	require.Equal(t, d, verified)

	// It is also encoded as ours are, but that its map is of the older kind.
	payload := d.Encode()
	payload[0] = 0xa9
	require.True(t, bytes.Contains(signed, payload[:len(payload)-1]))

	real.At = at.Add(24 * time.Hour)
	_, err = attest.Verify(signed, real)
	require.ErrorIs(t, err, attest.ErrExpired)
	_, err = attest.Verify(signed, newWorld(t).expect())
	require.ErrorIs(t, err, attest.ErrRoot)
}
