package pki_test

import (
	"crypto/x509"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/attest/pki"
)

// FuzzParseAuthority reads a root's certificate and key from any PEM. One that is accepted can issue certificates.
func FuzzParseAuthority(f *testing.F) {
	cert, key := ownCA(f, func(*x509.Certificate) {})
	f.Add(cert, key)
	f.Add(key, cert)
	f.Add(append(key, cert...), append(cert, key...))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"), []byte("-----BEGIN EC PRIVATE KEY-----\n\n"))
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, cert, key []byte) {
		a, err := pki.ParseAuthority(cert, key)
		if err != nil {
			require.Nil(t, a)
			return
		}
		instance, err := pki.NewInstance(a, pki.Profile{})
		require.NoError(t, err)
		credential, err := instance.Enclave(1).Credential()
		if err == nil {
			require.Len(t, credential.CABundle, 4)
		}
	})
}
