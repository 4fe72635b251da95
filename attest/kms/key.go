package kms

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// materialSize is the size of a symmetric key in bytes: SYMMETRIC_DEFAULT is AES-256-GCM.
const materialSize = 32

// maxKeys bounds the keys of a service.
const maxKeys = 10000

// record is a key. It is replaced, never changed.
type record struct {
	ID          string // a UUID
	Created     time.Time
	Description string   `json:",omitempty"`
	Disabled    bool     `json:",omitempty"`
	Aliases     []string `json:",omitempty"` // with "alias/"
	Policy      string
	Material    []byte

	policy policy // what Policy says
}

// uuid makes an identifier (RFC 9562, version 4).
func uuid() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// arnOf is the ARN of a key or an alias, which name is with "key/" or "alias/".
func (s *Service) arnOf(name string) string {
	return "arn:aws:kms:" + s.region + ":" + s.account + ":" + name
}

func (s *Service) arn(r *record) string { return s.arnOf("key/" + r.ID) }

// find returns the key that a KeyId names: an id, an alias, or the ARN of one of them.
func (s *Service) find(keyID string) (*record, error) {
	switch {
	case keyID == "":
		return nil, refuse(errValidation, "KeyId is missing")
	case len(keyID) > 2048:
		return nil, refuse(errValidation, "KeyId has %d bytes, at most 2048 are allowed", len(keyID))
	}
	name := keyID
	if strings.HasPrefix(keyID, "arn:") {
		var ours bool
		if name, ours = strings.CutPrefix(keyID, s.arnOf("")); !ours {
			return nil, refuse(errNotFound, "%.200s is not of %s*", keyID, s.arnOf(""))
		}
		id, isKey := strings.CutPrefix(name, "key/")
		if !isKey && !strings.HasPrefix(name, aliasPrefix) {
			return nil, refuse(errInvalidArn, "%.200s is the ARN of neither a key nor an alias", keyID)
		}
		name = id
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if strings.HasPrefix(name, aliasPrefix) {
		if r := s.aliased(name); r != nil {
			return r, nil
		}
		return nil, refuse(errNotFound, "Alias %.300s is not found.", s.arnOf(name))
	}
	if r := s.keys[name]; r != nil {
		return r, nil
	}
	return nil, refuse(errNotFound, "Key '%.300s' does not exist", s.arnOf("key/"+name))
}

// known reports whether there is a key with an id.
func (s *Service) known(id string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.keys[id] != nil
}

// aliased returns the key of an alias, or nil. The caller holds mu.
func (s *Service) aliased(alias string) *record {
	for _, r := range s.keys {
		if slices.Contains(r.Aliases, alias) {
			return r
		}
	}
	return nil
}

// usable finds a key for cryptography.
func (s *Service) usable(keyID string, a *access) (*record, error) {
	r, err := s.permitted(keyID, a)
	if err == nil && r.Disabled {
		err = refuse(errDisabled, "%s is disabled.", s.arn(r))
	}
	return r, err
}

// permitted finds a key with which the caller may do what he wants.
func (s *Service) permitted(keyID string, a *access) (*record, error) {
	r, err := s.find(keyID)
	if err != nil {
		return nil, err
	}
	a.key = s.arn(r)
	if err := a.authorize(r.policy); err != nil {
		return nil, err
	}
	return r, nil
}

// add puts a new key into the store.
func (s *Service) add(r *record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.keys) >= maxKeys {
		return refuse(errLimitExceeded, "there are %d keys", len(s.keys))
	}
	return s.put(r)
}

// change replaces a key by a copy that f has changed, if the caller may do so by the
// policy that the key has at that moment.
func (s *Service) change(keyID string, a *access, f func(*record) error) error {
	found, err := s.find(keyID)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := *s.keys[found.ID] // keys are never removed
	a.key = s.arn(&r)
	if err := a.authorize(r.policy); err != nil {
		return err
	}
	r.Aliases = slices.Clone(r.Aliases)
	if err := f(&r); err != nil {
		return err
	}
	return s.put(&r)
}

// put saves a key and then shows it. The caller holds mu.
func (s *Service) put(r *record) error {
	if err := s.store.save(r); err != nil {
		return fmt.Errorf("save the key: %w", err)
	}
	s.keys[r.ID] = r
	return nil
}

const aliasPrefix = "alias/"

// aliasName is the form of an alias: CreateAlias, AWS KMS API Reference.
var aliasName = regexp.MustCompile(`^alias/[a-zA-Z0-9/_-]{1,250}$`)

// blobVersion begins the ciphertexts of this package; the key's id follows.
const blobVersion = 0x4e

const blobHeader = 1 + 36

// encrypt makes a CiphertextBlob. It is bound to the key and the encryption context.
func (r *record) encrypt(plaintext []byte, context map[string]string) []byte {
	blob := append([]byte{blobVersion}, r.ID...)
	return append(blob, sealed(newGCM(r.Material), plaintext, aad(blob, context))...)
}

// keyOf reports which key a CiphertextBlob is of.
func keyOf(blob []byte) (id string, ok bool) {
	if len(blob) <= blobHeader || blob[0] != blobVersion {
		return "", false
	}
	return string(blob[1:blobHeader]), true
}

// decrypt opens a CiphertextBlob of this key.
func (r *record) decrypt(blob []byte, context map[string]string) ([]byte, error) {
	plaintext, err := openSealed(newGCM(r.Material), blob[blobHeader:], aad(blob[:blobHeader], context))
	if err != nil {
		return nil, refuse(errInvalidCiphertext, "the ciphertext was changed, or its encryption context is another one")
	}
	return plaintext, nil
}

// aad encodes a blob's header and an encryption context, the latter in one way whatever its order.
func aad(header []byte, context map[string]string) []byte {
	b := slices.Clone(header)
	for _, name := range slices.Sorted(maps.Keys(context)) {
		for _, text := range []string{name, context[name]} {
			b = binary.BigEndian.AppendUint32(b, uint32(len(text)))
			b = append(b, text...)
		}
	}
	return b
}
