package pki

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/nesim/nesim/internal/files"
)

// rootFile holds the root's certificate and key, both in PEM: one file, so that they
// are never of two minds.
const rootFile = "attestation-root.pem"

// maxFile bounds what is read of a PEM file, in bytes.
const maxFile = 64 << 10

// DefaultDir returns nesim's folder among the user's data: $XDG_DATA_HOME/nesim, or
// ~/.local/share/nesim (XDG Base Directory Specification).
func DefaultDir() (string, error) {
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "nesim"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find the folder for the attestation root; set XDG_DATA_HOME: %w", err)
	}
	return filepath.Join(home, ".local", "share", "nesim"), nil
}

// Open returns the user's authority, kept in dir. It makes it if there is none; of
// two processes that do so at once, both get the same.
func Open(dir string) (*Authority, error) {
	path := filepath.Join(dir, rootFile)
	a, err := load(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = create(dir, path); err == nil {
			a, err = load(path)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("attestation root: %w", err)
	}
	return a, nil
}

func load(path string) (*Authority, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s can be read by others; chmod 600 it, or remove it to have a new one made", path)
	}
	text, err := readBounded(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	a, err := ParseAuthority(text, text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; remove it to have a new one made", path, err)
	}
	return a, nil
}

// create makes a root, or finds that another process was first, which is as good.
func create(dir, path string) error {
	a, err := NewAuthority(time.Now())
	if err != nil {
		return err
	}
	text, err := a.encode()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	err = files.WriteNew(path, 0o600, func(f *os.File) error {
		_, err := f.Write(text)
		return err
	})
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

func (a *Authority) encode() ([]byte, error) {
	key, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
	pem.Encode(&text, &pem.Block{Type: "PRIVATE KEY", Bytes: key})
	return text.Bytes(), nil
}

// LoadAuthority reads an authority of the user's own from two PEM files.
func LoadAuthority(certFile, keyFile string) (*Authority, error) {
	var texts [2][]byte
	for i, name := range []string{certFile, keyFile} {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		texts[i], err = readBounded(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	a, err := ParseAuthority(texts[0], texts[1])
	if err != nil {
		return nil, fmt.Errorf("%s, %s: %w", certFile, keyFile, err)
	}
	return a, nil
}

func readBounded(r io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("longer than %d bytes", maxFile)
	}
	return text, err
}
