package attest

import "errors"

// What can be wrong with the structure of a signed document: sections 3.1 and 3.2.1.
var (
	ErrTooLong   = errors.New("longer than an attestation document can be")
	ErrNotCOSE   = errors.New("not a COSE_Sign1 structure")
	ErrAlgorithm = errors.New("the protected header is not just the algorithm ES384")
	ErrHeader    = errors.New("the unprotected header is not empty")
	ErrPayload   = errors.New("the payload is not a well-formed CBOR map, or empty or over-long")
)

// What can be wrong with its content: section 3.2.2.
var (
	ErrMissing         = errors.New("a mandatory field is missing or null")
	ErrUnknownField    = errors.New("a field that no attestation document has")
	ErrType            = errors.New("a field has the wrong type")
	ErrModuleID        = errors.New("module_id is empty")
	ErrDigest          = errors.New("digest is not SHA384")
	ErrTimestamp       = errors.New("timestamp is zero")
	ErrPCRCount        = errors.New("pcrs has not 1 to 32 entries")
	ErrPCRIndex        = errors.New("a PCR's index is not below 32")
	ErrPCRLength       = errors.New("a PCR has not 32, 48 or 64 bytes")
	ErrCABundle        = errors.New("cabundle is empty, or longer than any chain")
	ErrCertificateSize = errors.New("a certificate has not 1 to 1024 bytes")
	ErrPublicKey       = errors.New("public_key has not 1 to 1024 bytes")
	ErrUserData        = errors.New("user_data has more than 4096 bytes")
	ErrNonce           = errors.New("nonce has more than 4096 bytes")
)

// What can be wrong with its certificates and its signature: sections 3.2.1, 3.2.3 and 3.2.4.
var (
	ErrCertificate       = errors.New("not a certificate")
	ErrRoot              = errors.New("the document's root is not a root that is trusted here")
	ErrNotYetValid       = errors.New("a certificate is not valid yet")
	ErrExpired           = errors.New("a certificate has expired")
	ErrCriticalExtension = errors.New("a certificate has a critical extension that is not understood")
	ErrBasicConstraints  = errors.New("a certificate of the chain is not a CA's")
	ErrPathLen           = errors.New("a CA's chain is longer than its pathLenConstraint")
	ErrKeyCertSign       = errors.New("a CA's key usage lacks keyCertSign")
	ErrTargetPathLen     = errors.New("the signing certificate is a CA's or has a pathLenConstraint")
	ErrDigitalSignature  = errors.New("the signing certificate's key usage lacks digitalSignature")
	ErrKeyType           = errors.New("the signing certificate's key is not of the curve P-384")
	ErrChain             = errors.New("a certificate is not issued by the one before it")
	ErrSignature         = errors.New("the document's signature is wrong")
)

// What a verifier may expect of a document besides.
var (
	ErrPCRMismatch   = errors.New("a PCR is not the expected one")
	ErrNonceMismatch = errors.New("the nonce is not the expected one")
)
