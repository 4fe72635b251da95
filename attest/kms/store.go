package kms

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/internal/files"
)

// Names of the files in a store's folder, and what is read of one at most, in bytes.
const (
	secretFile = "secret"
	lockFile   = "lock"
	keySuffix  = ".key"
	maxFile    = 256 << 10
)

// secretSize is the size of the secret that seals the others, in bytes.
const secretSize = 32

// store is a folder of sealed files. It is held until it is closed.
type store struct {
	dir  string
	lock *os.File
	seal cipher.AEAD
}

// openStore opens a folder, which it makes if need be, for the owner of a root of attestation.
func openStore(dir string, owner []byte) (*store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	s := &store{dir: dir, lock: lock}
	if err := s.open(owner); err != nil {
		lock.Close()
		return nil, err
	}
	return s, nil
}

func (s *store) open(owner []byte) error {
	if err := unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("%s is in use by another nesim kms serve", s.dir)
		}
		return fmt.Errorf("lock %s: %w", s.lock.Name(), err)
	}
	left, _ := filepath.Glob(filepath.Join(s.dir, ".*"+files.PartSuffix)) // of one that was killed while it wrote
	for _, name := range left {
		os.Remove(name)
	}
	secret, err := s.secret()
	if err != nil {
		return err
	}
	sealing, err := hkdf.Key(sha256.New, slices.Concat(owner, secret), nil, "nesim kms: keys on disk", 32)
	if err != nil {
		return fmt.Errorf("derive the sealing key: %w", err)
	}
	s.seal = newGCM(sealing)
	return nil
}

func (s *store) close() error { return s.lock.Close() }

// secret reads the folder's secret, which is made where there are no keys yet.
func (s *store) secret() ([]byte, error) {
	path := filepath.Join(s.dir, secretFile)
	secret, err := readPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		if keys, _ := filepath.Glob(filepath.Join(s.dir, "*"+keySuffix)); len(keys) > 0 {
			return nil, fmt.Errorf("%s is gone, without which the keys beside it cannot be opened; put it back, or remove them", path)
		}
		secret = make([]byte, secretSize)
		rand.Read(secret)
		return secret, s.write(secretFile, secret)
	}
	if err != nil {
		return nil, err
	}
	if len(secret) != secretSize {
		return nil, fmt.Errorf("%s has %d bytes instead of %d", path, len(secret), secretSize)
	}
	return secret, nil
}

// load reads all keys.
func (s *store) load() ([]*record, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var records []*record
	for _, entry := range entries {
		id, ok := strings.CutSuffix(entry.Name(), keySuffix)
		if !ok {
			continue
		}
		r, err := s.read(id)
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", filepath.Join(s.dir, entry.Name()), err)
		}
		records = append(records, r)
	}
	return records, nil
}

func (s *store) read(id string) (*record, error) {
	sealed, err := readPrivate(filepath.Join(s.dir, id+keySuffix))
	if err != nil {
		return nil, err
	}
	text, err := openSealed(s.seal, sealed, []byte(id))
	if err != nil {
		return nil, errors.New("was changed, or is of another folder or another root of attestation; put it right, or remove it")
	}
	r := &record{}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, err
	}
	if r.ID != id || len(r.Material) != materialSize {
		return nil, errors.New("holds no key of this version of nesim")
	}
	r.policy, err = readPolicy(r.Policy)
	return r, err
}

// save writes a key.
func (s *store) save(r *record) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return s.write(r.ID+keySuffix, sealed(s.seal, text, []byte(r.ID)))
}

// write puts a file in place of another, so that there is always a whole one.
func (s *store) write(name string, content []byte) error {
	return files.Write(filepath.Join(s.dir, name), content, 0o600)
}

// readPrivate reads a file that nobody else may read.
func readPrivate(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", path)
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%s can be read by others; chmod 600 it", path)
	}
	content, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(content) > maxFile {
		err = fmt.Errorf("%s is longer than %d bytes", path, maxFile)
	}
	return content, err
}

// newGCM makes AES-256-GCM with a random nonce in front of each ciphertext.
func newGCM(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // all keys have 32 bytes
	}
	gcm, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return gcm
}

func sealed(gcm cipher.AEAD, plaintext, aad []byte) []byte { return gcm.Seal(nil, nil, plaintext, aad) }

func openSealed(gcm cipher.AEAD, ciphertext, aad []byte) ([]byte, error) {
	return gcm.Open(nil, nil, ciphertext, aad)
}
