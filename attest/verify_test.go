package attest_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/attest"
	"github.com/nesim/nesim/attest/pki"
)

func TestAGoodDocumentIsAccepted(t *testing.T) {
	w := newWorld(t)
	want := w.expect()
	want.Roots = append(want.Roots, attest.AWSRoot)
	want.PCRs = map[uint64][]byte{0: w.doc.PCRs[0], 15: w.doc.PCRs[15]}
	want.Nonce = []byte("a nonce")
	d, err := attest.Verify(w.sign(), want)
	require.NoError(t, err)
	require.Equal(t, w.doc, d)

	want.At = time.Time{}
	_, err = attest.Verify(w.sign(), want)
	require.NoError(t, err, "now is the default")
}

func TestWhatIsNotExpectedIsRefused(t *testing.T) {
	w := newWorld(t)
	signed := w.sign()
	for what, c := range map[string]struct {
		rule   error
		change func(*attest.Expect)
	}{
		"no root":       {attest.ErrRoot, func(e *attest.Expect) { e.Roots = nil }},
		"another root":  {attest.ErrRoot, func(e *attest.Expect) { e.Roots = []attest.Fingerprint{attest.AWSRoot} }},
		"another PCR":   {attest.ErrPCRMismatch, func(e *attest.Expect) { e.PCRs = map[uint64][]byte{1: make([]byte, 48)} }},
		"a short PCR":   {attest.ErrPCRMismatch, func(e *attest.Expect) { e.PCRs = map[uint64][]byte{1: w.doc.PCRs[1][:32]} }},
		"no such PCR":   {attest.ErrPCRMismatch, func(e *attest.Expect) { e.PCRs = map[uint64][]byte{16: make([]byte, 48)} }},
		"another nonce": {attest.ErrNonceMismatch, func(e *attest.Expect) { e.Nonce = []byte("a nonse") }},
		"an empty one":  {attest.ErrNonceMismatch, func(e *attest.Expect) { e.Nonce = []byte{} }},
		"too late":      {attest.ErrExpired, func(e *attest.Expect) { e.At = w.now.Add(pki.LeafValidity + time.Minute) }},
		"too early":     {attest.ErrNotYetValid, func(e *attest.Expect) { e.At = w.now.Add(-time.Hour) }},
	} {
		want := w.expect()
		c.change(&want)
		_, err := attest.Verify(signed, want)
		require.ErrorIs(t, err, c.rule, what)
	}
}

// badFields is what no field may be: the field, its value (nil: it is missing), and the
// rule that it breaks.
func badFields(w *world) []badField {
	pcrs := func(n int) map[uint64][]byte {
		m := map[uint64][]byte{}
		for i := range n {
			m[uint64(i)] = make([]byte, 48)
		}
		return m
	}
	long := make([]byte, 1025)
	return []badField{
		{"module_id", nil, attest.ErrMissing}, {"module_id", "", attest.ErrModuleID},
		{"module_id", []byte("i-1-enc1"), attest.ErrType}, {"module_id", 1, attest.ErrType},
		{"digest", nil, attest.ErrMissing}, {"digest", "SHA256", attest.ErrDigest},
		{"digest", "sha384", attest.ErrDigest}, {"digest", 384, attest.ErrType},
		{"timestamp", nil, attest.ErrMissing}, {"timestamp", 0, attest.ErrTimestamp},
		{"timestamp", -1, attest.ErrType}, {"timestamp", "now", attest.ErrType}, {"timestamp", 1.5, attest.ErrType},
		{"pcrs", nil, attest.ErrMissing}, {"pcrs", pcrs(0), attest.ErrPCRCount}, {"pcrs", pcrs(33), attest.ErrPCRCount},
		{"pcrs", []any{make([]byte, 48)}, attest.ErrType}, {"pcrs", map[string][]byte{"0": make([]byte, 48)}, attest.ErrType},
		{"pcrs", map[int][]byte{-1: make([]byte, 48)}, attest.ErrType},
		{"pcrs", map[int][]byte{32: make([]byte, 48)}, attest.ErrPCRIndex},
		{"pcrs", map[uint64][]byte{1 << 40: make([]byte, 48)}, attest.ErrPCRIndex},
		{"pcrs", map[int][]byte{0: make([]byte, 47)}, attest.ErrPCRLength},
		{"pcrs", map[int][]byte{0: {}}, attest.ErrPCRLength}, {"pcrs", map[int]string{0: "zero"}, attest.ErrType},
		{"certificate", nil, attest.ErrMissing}, {"certificate", []byte{}, attest.ErrCertificateSize},
		{"certificate", long, attest.ErrCertificateSize}, {"certificate", []byte("no certificate"), attest.ErrCertificate},
		{"certificate", "text", attest.ErrType}, {"certificate", w.doc.CABundle[3], attest.ErrSignature},
		{"cabundle", nil, attest.ErrMissing}, {"cabundle", [][]byte{}, attest.ErrCABundle},
		{"cabundle", w.doc.CABundle[0], attest.ErrType}, {"cabundle", []any{"text"}, attest.ErrType},
		{"cabundle", append([][]byte{{}}, w.doc.CABundle...), attest.ErrCertificateSize},
		{"cabundle", append([][]byte{long}, w.doc.CABundle...), attest.ErrCertificateSize},
		{"cabundle", append([][]byte{{1}}, w.doc.CABundle...), attest.ErrCertificate},
		{"cabundle", make([][]byte, 17), attest.ErrType},
		{"cabundle", slices.Repeat(w.doc.CABundle[:1], 17), attest.ErrCABundle},
		{"cabundle", w.doc.CABundle[:3], attest.ErrChain},
		{"public_key", long, attest.ErrPublicKey},
		{"public_key", "text", attest.ErrType}, {"public_key", 1, attest.ErrType},
		{"user_data", "text", attest.ErrType},
		{"nonce", "text", attest.ErrType}, {"nonce", map[int]int{}, attest.ErrType},
	}
}

// strictFields are those that other verifiers let pass.
func strictFields(w *world) []badField {
	reversed := slices.Clone(w.doc.CABundle)
	slices.Reverse(reversed)
	return []badField{
		{"cabundle", w.doc.CABundle[1:], attest.ErrRoot}, {"cabundle", reversed, attest.ErrRoot},
		{"public_key", []byte{}, attest.ErrPublicKey}, {"user_data", make([]byte, 4097), attest.ErrUserData},
		{"user_data", []any{}, attest.ErrType}, {"nonce", make([]byte, 4097), attest.ErrNonce},
		{"comment", "hello", attest.ErrUnknownField}, {"Nonce", []byte("a"), attest.ErrUnknownField},
	}
}

type badField struct {
	name  string
	value any
	rule  error
}

func TestABadFieldIsRefusedThoughProperlySigned(t *testing.T) {
	w := newWorld(t)
	for _, f := range append(badFields(w), strictFields(w)...) {
		w.refuses(w.signWith(f.name, f.value), f.rule, "%s is a bad %T", f.name, f.value)
	}
	for _, name := range []string{"module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle"} {
		w.refuses(w.signWith(name, cbor.RawMessage{0xf6}), attest.ErrMissing, "%s is null", name)
	}
}

func TestABadPayloadIsRefusedThoughProperlySigned(t *testing.T) {
	w := newWorld(t)
	good := w.doc.Encode()
	for what, payload := range map[string][]byte{
		"an array":     {0x80},
		"null":         {0xf6},
		"a number":     {0x01},
		"empty map":    nil,
		"cut short":    good[:len(good)-1],
		"one more":     append(bytes.Clone(good), 0),
		"tagged":       append([]byte{0xc1}, good...),
		"a field more": append(append(bytes.Clone(good[:len(good)-1]), "\x65nonce\x41a"...), 0xff),
		"no UTF-8":     {0xa1, 0x61, 0xff, 0x01},
		"deep":         bytes.Repeat([]byte{0x81}, 1000),
		"huge":         {0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"over-long":    make([]byte, attest.MaxPayload+1),
	} {
		if what == "empty map" {
			w.refuses(w.signPayload([]byte{0xa0}), attest.ErrMissing)
			continue
		}
		w.refuses(w.signPayload(payload), attest.ErrPayload, what)
	}
}

func TestABadEnvelopeIsRefused(t *testing.T) {
	w := newWorld(t)
	good := w.sign()
	var items []cbor.RawMessage
	require.NoError(t, cbor.Unmarshal(good, &items))
	with := func(i int, raw ...byte) []byte {
		changed := append([]cbor.RawMessage{}, items...)
		changed[i] = raw
		signed, err := cbor.Marshal(changed)
		require.NoError(t, err)
		return signed
	}
	for what, c := range map[string]struct {
		signed []byte
		rule   error
	}{
		"nothing":             {nil, attest.ErrNotCOSE},
		"over-long":           {make([]byte, attest.MaxSigned+1), attest.ErrTooLong},
		"a tag twice":         {append([]byte{0xd2, 0xd2}, good...), attest.ErrNotCOSE},
		"another tag":         {append([]byte{0xd1}, good...), attest.ErrNotCOSE},
		"a map":               {[]byte{0xa0}, attest.ErrNotCOSE},
		"three items":         {append([]byte{0x83}, good[1:len(good)-98]...), attest.ErrNotCOSE},
		"trailing bytes":      {append(bytes.Clone(good), 0), attest.ErrNotCOSE},
		"ES256":               {with(0, 0x43, 0xa1, 0x01, 0x26), attest.ErrAlgorithm},
		"no algorithm":        {with(0, 0x40), attest.ErrAlgorithm},
		"protected is text":   {with(0, 0x60), attest.ErrNotCOSE},
		"protected is a map":  {with(0, 0xa1, 0x01, 0x38, 0x22), attest.ErrNotCOSE},
		"unprotected has one": {with(1, 0xa1, 0x04, 0x41, 0x00), attest.ErrHeader},
		"unprotected is null": {with(1, 0xf6), attest.ErrHeader},
		"payload is null":     {with(2, 0xf6), attest.ErrPayload},
		"payload is empty":    {with(2, 0x40), attest.ErrPayload},
		"signature is empty":  {with(3, 0x40), attest.ErrNotCOSE},
		"signature is null":   {with(3, 0xf6), attest.ErrNotCOSE},
		"signature is short":  {with(3, append([]byte{0x58, 0x5f}, good[len(good)-95:]...)...), attest.ErrSignature},
		"signature of zeros":  {with(3, append([]byte{0x58, 0x60}, make([]byte, 96)...)...), attest.ErrSignature},
	} {
		w.refuses(c.signed, c.rule, what)
	}
}

// step is how far apart bytes are that tests change.
func step() int {
	if testing.Short() {
		return 17
	}
	return 1
}

func TestEveryByteCounts(t *testing.T) {
	w := newWorld(t)
	good := w.sign()
	for i := 0; i < len(good); i += step() {
		bad := bytes.Clone(good)
		bad[i] ^= 1 << (i % 8)
		_, err := attest.Verify(bad, w.expect())
		require.Error(t, err, "byte %d is %#x", i, bad[i])
		_, err = attest.Decode(good[:i])
		require.Error(t, err, "the first %d bytes", i)
	}
}

// issuer makes certificates of any kind.
type issuer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (by *issuer) issue(t *testing.T, curve elliptic.Curve, change func(*x509.Certificate)) *issuer {
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		BasicConstraintsValid: true, IsCA: true, MaxPathLen: -1, KeyUsage: x509.KeyUsageCertSign,
	}
	change(template)
	if by == nil {
		by = &issuer{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, key.Public(), by.key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &issuer{cert, key}
}

func TestAChainThatBreaksARuleIsRefused(t *testing.T) {
	type change = func(*x509.Certificate)
	same := func(*x509.Certificate) {}
	named := func(name string, more change) change {
		return func(c *x509.Certificate) { c.Subject.CommonName = name; more(c) }
	}
	leaf := func(more change) change {
		return func(c *x509.Certificate) {
			c.IsCA, c.MaxPathLen, c.KeyUsage = false, 0, x509.KeyUsageDigitalSignature
			c.Subject.CommonName = "leaf"
			more(c)
		}
	}
	critical := func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
	}
	for what, c := range map[string]struct {
		rule                error
		root, between, leaf change
		curve               elliptic.Curve
	}{
		"good":                  {nil, same, same, leaf(same), elliptic.P384()},
		"root expired":          {attest.ErrExpired, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }, same, leaf(same), elliptic.P384()},
		"CA not yet valid":      {attest.ErrNotYetValid, same, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }, leaf(same), elliptic.P384()},
		"CA is none":            {attest.ErrBasicConstraints, same, func(c *x509.Certificate) { c.IsCA, c.MaxPathLen = false, 0 }, leaf(same), elliptic.P384()},
		"CA says nothing of it": {attest.ErrBasicConstraints, same, func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = false, false }, leaf(same), elliptic.P384()},
		"root's path too long":  {attest.ErrPathLen, func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 0, true }, same, leaf(same), elliptic.P384()},
		"path just right":       {nil, func(c *x509.Certificate) { c.MaxPathLen = 1 }, func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 0, true }, leaf(same), elliptic.P384()},
		"CA may not sign":       {attest.ErrKeyCertSign, same, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }, leaf(same), elliptic.P384()},
		"leaf is a CA":          {attest.ErrTargetPathLen, same, same, leaf(func(c *x509.Certificate) { c.IsCA, c.MaxPathLen = true, -1 }), elliptic.P384()},
		"leaf may not sign":     {attest.ErrDigitalSignature, same, same, leaf(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageContentCommitment }), elliptic.P384()},
		"leaf of another curve": {attest.ErrKeyType, same, same, leaf(same), elliptic.P256()},
		"critical extension":    {attest.ErrCriticalExtension, same, critical, leaf(same), elliptic.P384()},
	} {
		w := newWorld(t)
		root := (*issuer)(nil).issue(t, elliptic.P384(), named("root", c.root))
		between := root.issue(t, elliptic.P384(), named("between", c.between))
		leaf := between.issue(t, c.curve, c.leaf)
		w.root = root.cert
		w.doc.CABundle, w.doc.Certificate = [][]byte{root.cert.Raw, between.cert.Raw}, leaf.cert.Raw
		if c.curve == elliptic.P384() {
			w.credential = &pki.Credential{Key: leaf.key}
		}
		if c.rule != nil {
			w.refuses(w.sign(), c.rule, what)
			continue
		}
		_, err := attest.Verify(w.sign(), w.expect())
		require.NoError(t, err, what)
	}
}

func TestACertificateOfAnotherIssuerWithTheSameNameIsRefused(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	w.doc.CABundle = append([][]byte{other.root.Raw}, w.doc.CABundle[1:]...)
	w.root = other.root
	w.refuses(w.sign(), attest.ErrChain)
}
