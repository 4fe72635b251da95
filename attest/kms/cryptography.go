package kms

import "crypto/rand"

// Limits of the operations' fields in bytes, by their pages of the AWS KMS API Reference,
// and of an encryption context by "Resource quotas" of the Developer Guide.
const (
	maxPlaintext  = 4096
	maxCiphertext = 6144
	maxRandom     = 1024
	maxContext    = 8192
)

// cryptoRequest has the fields that cryptographic operations have in common.
type cryptoRequest struct {
	KeyId               string
	EncryptionContext   map[string]string
	EncryptionAlgorithm string
	Recipient           *recipientInfo
	DryRun              bool
}

// prepare checks what is common, and tells access about it.
func (s *Service) prepare(a *access, q *cryptoRequest) (err error) {
	size := 0
	for name, value := range q.EncryptionContext {
		size += len(name) + len(value)
	}
	switch {
	case size > maxContext:
		return refuse(errValidation, "EncryptionContext has %d bytes, at most %d are allowed", size, maxContext)
	case !is(q.EncryptionAlgorithm, symmetric):
		return refuse(errInvalidKeyUsage, "the encryption algorithm %.40q is not of symmetric keys", q.EncryptionAlgorithm)
	}
	a.context = q.EncryptionContext
	a.recipient, err = s.verify(q.Recipient)
	return err
}

// dry ends a dry run, which has come as far as the real one would.
func (q *cryptoRequest) dry() error {
	if q.DryRun {
		return refuse(errDryRun, "The request would have succeeded, but the DryRun option is set.")
	}
	return nil
}

// within refuses a field of the wrong length.
func within(field string, n, most int) error {
	if n < 1 || n > most {
		return refuse(errValidation, "%s has %d bytes, want 1 to %d", field, n, most)
	}
	return nil
}

type encryptRequest struct {
	cryptoRequest
	Plaintext []byte
}

func (s *Service) encrypt(a *access, q *encryptRequest) (any, error) {
	q.Recipient = nil // not a field of this operation
	if err := within("Plaintext", len(q.Plaintext), maxPlaintext); err != nil {
		return nil, err
	}
	if err := s.prepare(a, &q.cryptoRequest); err != nil {
		return nil, err
	}
	r, err := s.usable(q.KeyId, a)
	if err != nil {
		return nil, err
	}
	return struct {
		CiphertextBlob             []byte
		KeyId, EncryptionAlgorithm string
	}{r.encrypt(q.Plaintext, a.context), s.arn(r), symmetric}, q.dry()
}

type decryptRequest struct {
	cryptoRequest
	CiphertextBlob []byte
}

func (s *Service) decrypt(a *access, q *decryptRequest) (any, error) {
	if err := within("CiphertextBlob", len(q.CiphertextBlob), maxCiphertext); err != nil {
		return nil, err
	}
	if err := s.prepare(a, &q.cryptoRequest); err != nil {
		return nil, err
	}
	r, err := s.decrypting(a, q)
	if err != nil {
		return nil, err
	}
	secret, err := r.decrypt(q.CiphertextBlob, a.context)
	if err != nil {
		return nil, err
	}
	handed, err := a.recipient.hand(secret)
	if err != nil {
		return nil, err
	}
	return struct {
		plaintext
		KeyId, EncryptionAlgorithm string
	}{handed, s.arn(r), symmetric}, q.dry()
}

// decrypting finds the key for a ciphertext. One that the request names must be the same.
func (s *Service) decrypting(a *access, q *decryptRequest) (*record, error) {
	id, ok := keyOf(q.CiphertextBlob)
	if q.KeyId == "" {
		if !ok {
			return nil, errNotOurs
		}
		if s.known(id) {
			return s.usable(id, a)
		}
		return nil, refuse(errAccessDenied, "The ciphertext refers to a customer master key that does not exist, does not exist in this region, or you are not allowed to access.").because("the ciphertext names no key of this service: %.40q", id)
	}
	r, err := s.usable(q.KeyId, a)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, errNotOurs
	case r.ID != id:
		return nil, refuse(errIncorrectKey, "The key ID in the request does not identify a CMK that can perform this operation.")
	}
	return r, nil
}

var errNotOurs = refuse(errInvalidCiphertext, "this is not a ciphertext of this service")

type dataKeyRequest struct {
	cryptoRequest
	KeySpec       string
	NumberOfBytes *int
}

// size is the size of the data key that is asked for, in bytes.
func (q *dataKeyRequest) size() (int, error) {
	switch {
	case (q.KeySpec == "") == (q.NumberOfBytes == nil):
		return 0, refuse(errValidation, "Please specify either number of bytes or key spec.")
	case q.NumberOfBytes != nil:
		return *q.NumberOfBytes, within("NumberOfBytes", *q.NumberOfBytes, maxRandom)
	case q.KeySpec == "AES_256":
		return 32, nil
	case q.KeySpec == "AES_128":
		return 16, nil
	}
	return 0, refuse(errValidation, "KeySpec is %.40q, want AES_256 or AES_128", q.KeySpec)
}

// dataKey is the response, with a Plaintext or for a recipient or with neither.
type dataKey struct {
	plaintext
	CiphertextBlob []byte
	KeyId          string
}

func (s *Service) generateDataKey(a *access, q *dataKeyRequest) (any, error) {
	secret, made, err := s.makeDataKey(a, q)
	if err != nil {
		return nil, err
	}
	if made.plaintext, err = a.recipient.hand(secret); err != nil {
		return nil, err
	}
	return made, q.dry()
}

func (s *Service) generateDataKeyWithoutPlaintext(a *access, q *dataKeyRequest) (any, error) {
	q.Recipient = nil // not a field of this operation
	_, made, err := s.makeDataKey(a, q)
	if err != nil {
		return nil, err
	}
	return made, q.dry()
}

func (s *Service) makeDataKey(a *access, q *dataKeyRequest) ([]byte, *dataKey, error) {
	size, err := q.size()
	if err != nil {
		return nil, nil, err
	}
	if err := s.prepare(a, &q.cryptoRequest); err != nil {
		return nil, nil, err
	}
	r, err := s.usable(q.KeyId, a)
	if err != nil {
		return nil, nil, err
	}
	secret := make([]byte, size)
	rand.Read(secret)
	return secret, &dataKey{CiphertextBlob: r.encrypt(secret, a.context), KeyId: s.arn(r)}, nil
}

type randomRequest struct {
	NumberOfBytes    int
	CustomKeyStoreId string
	Recipient        *recipientInfo
}

func (s *Service) generateRandom(_ *access, q *randomRequest) (any, error) {
	if q.CustomKeyStoreId != "" {
		return nil, refuse(errCustomKeyStore, "there are no custom key stores")
	}
	if err := within("NumberOfBytes", q.NumberOfBytes, maxRandom); err != nil {
		return nil, err
	}
	to, err := s.verify(q.Recipient)
	if err != nil {
		return nil, err
	}
	secret := make([]byte, q.NumberOfBytes)
	rand.Read(secret)
	handed, err := to.hand(secret)
	if err != nil {
		return nil, err
	}
	return struct{ plaintext }{handed}, nil
}
