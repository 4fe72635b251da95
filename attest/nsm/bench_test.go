package nsm_test

import (
	"crypto"
	"crypto/rand"
	"crypto/sha512"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// BenchmarkDocuments makes documents as an enclave asks for them and, in turns with
// that, bare signatures with the same key. It reports both a second and their ratio.
func BenchmarkDocuments(b *testing.B) {
	c, _ := config(b)
	n := newNSM(b)
	request := x("a1 'Attestation' a3 'user_data' f6 'nonce' 5020202020202020202020202020202020 'public_key' f6")
	credential, err := c.Enclave.Credential()
	require.NoError(b, err)
	digest := sha512.Sum384([]byte("a document"))
	n.Handle(request) // certificates are made once
	var documents, signatures time.Duration
	for b.Loop() {
		start := time.Now()
		n.Handle(request)
		middle := time.Now()
		if _, err := credential.Key.Sign(rand.Reader, digest[:], crypto.SHA384); err != nil {
			b.Fatal(err)
		}
		documents, signatures = documents+middle.Sub(start), signatures+time.Since(middle)
	}
	b.ReportMetric(float64(b.N)/documents.Seconds(), "documents/s")
	b.ReportMetric(float64(b.N)/signatures.Seconds(), "signatures/s")
	b.ReportMetric(float64(signatures)/float64(documents), "ratio")
}

func BenchmarkDescribePCR(b *testing.B) {
	n, request := newNSM(b), x("a1 'DescribePCR' a1 'index' 00")
	for b.Loop() {
		n.Handle(request)
	}
}
