package kms

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
)

// Object identifiers of RFC 5652 (sections 4 and 6.1), RFC 3565 (section 4.1), RFC 8017
// (appendix A.2) and RFC 5754 (section 2.2).
var (
	oidData          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidEnvelopedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 3}
	oidRSAESOAEP     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 7}
	oidMGF1          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 8}
	oidSHA256        = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidAES256CBC     = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}
)

// keyTransRecipientInfo is that of RFC 5652, section 6.2.1, in version 2, which names
// the recipient by a key identifier.
type keyTransRecipientInfo struct {
	Version                int
	SubjectKeyIdentifier   []byte `asn1:"tag:0"`
	KeyEncryptionAlgorithm pkix.AlgorithmIdentifier
	EncryptedKey           []byte
}

// oaepParams is RSAES-OAEP-params of RFC 8017, appendix A.2.1, without a label.
type oaepParams struct {
	Hash pkix.AlgorithmIdentifier `asn1:"explicit,tag:0"`
	MGF  pkix.AlgorithmIdentifier `asn1:"explicit,tag:1"`
}

var (
	sha256Algorithm = pkix.AlgorithmIdentifier{Algorithm: oidSHA256, Parameters: asn1.NullRawValue}
	oaepAlgorithm   = pkix.AlgorithmIdentifier{Algorithm: oidRSAESOAEP, Parameters: raw(der(oaepParams{
		Hash: sha256Algorithm,
		MGF:  pkix.AlgorithmIdentifier{Algorithm: oidMGF1, Parameters: raw(der(sha256Algorithm))},
	}))}
)

// envelope encrypts a plaintext for a public key, as CiphertextForRecipient has it: CMS
// EnvelopedData (RFC 5652, section 6.1) with RSAES-OAEP and AES-256-CBC. Like AWS's it is
// BER, not DER: its outer structures and the ciphertext have an indefinite length (X.690,
// section 8.1.3.6), and clients have to cope with that.
func envelope(plaintext []byte, to *rsa.PublicKey) ([]byte, error) {
	key, iv := make([]byte, 32), make([]byte, aes.BlockSize)
	rand.Read(key)
	rand.Read(iv)
	encryptedKey, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, to, key, nil)
	if err != nil {
		return nil, fmt.Errorf("encrypt for the recipient: %w", err)
	}
	spki, err := x509.MarshalPKIXPublicKey(to)
	if err != nil {
		return nil, fmt.Errorf("name the recipient: %w", err)
	}
	id := sha256.Sum256(spki) // 32 bytes, as in AWS's
	recipients := der([]keyTransRecipientInfo{{2, id[:], oaepAlgorithm, encryptedKey}})
	recipients[0] = asn1.TagSet | 0x20 // a SET of one
	algorithm := der(pkix.AlgorithmIdentifier{Algorithm: oidAES256CBC, Parameters: raw(der(iv))})

	content := indefinite(0x30, der(oidData), algorithm, indefinite(0xa0, der(encryptCBC(key, iv, plaintext))))
	enveloped := indefinite(0x30, der(2), recipients, content)
	return indefinite(0x30, der(oidEnvelopedData), indefinite(0xa0, enveloped)), nil
}

// encryptCBC pads as RFC 5652, section 6.3, has it, and encrypts.
func encryptCBC(key, iv, plaintext []byte) []byte {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // the key has 32 bytes
	}
	n := aes.BlockSize - len(plaintext)%aes.BlockSize
	padded := append(bytes.Clone(plaintext), bytes.Repeat([]byte{byte(n)}, n)...)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(padded, padded)
	return padded
}

// indefinite encodes parts under a constructed tag whose length is not told.
func indefinite(tag byte, parts ...[]byte) []byte {
	return append(append([]byte{tag, 0x80}, bytes.Join(parts, nil)...), 0, 0)
}

func raw(der []byte) asn1.RawValue { return asn1.RawValue{FullBytes: der} }

// der encodes what is known to be encodable.
func der(v any) []byte {
	b, err := asn1.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
