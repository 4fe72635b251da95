package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nesim/nesim/attest"
)

// maxDocumentText bounds what is read of a document, which may be in hex on lines of any length.
const maxDocumentText = 4 * attest.MaxSigned

// textEncodings are those in which people pass documents around. Base64 comes with padding and without.
var textEncodings = []struct {
	name   string
	decode func(string) ([]byte, error)
}{
	{"hex", func(s string) ([]byte, error) { return hex.DecodeString(strings.TrimPrefix(s, "0x")) }},
	{"base64", unpadded(base64.RawStdEncoding)},
	{"base64url", unpadded(base64.RawURLEncoding)},
}

func unpadded(e *base64.Encoding) func(string) ([]byte, error) {
	return func(s string) ([]byte, error) { return e.DecodeString(strings.TrimRight(s, "=")) }
}

// readDocument reads a signed document from a file, or from the standard input. It reports an encoding other than
// base64, which nesim itself writes, on the standard error.
func readDocument(cmd *cobra.Command, name string) ([]byte, error) {
	in := cmd.InOrStdin()
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	content, err := io.ReadAll(io.LimitReader(in, maxDocumentText+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	signed, encoding, err := decodeDocument(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if encoding == "hex" || encoding == "base64url" {
		fmt.Fprintf(cmd.ErrOrStderr(), "nesim: %s is encoded as %s\n", printable(name), encoding)
	}
	return signed, nil
}

// decodeDocument finds out how a document is encoded: "" is binary.
func decodeDocument(content []byte) (signed []byte, encoding string, err error) {
	switch text := strings.Join(strings.Fields(string(content)), ""); {
	case len(content) > maxDocumentText:
		return nil, "", attest.ErrTooLong
	case text == "":
		return nil, "", errors.New("is empty")
	case looksSigned(content):
		return content, "", nil
	default:
		return decodeText(content, text)
	}
}

func decodeText(content []byte, text string) (signed []byte, encoding string, err error) {
	for _, e := range textEncodings { // hex is base64 too, so what comes out decides
		if signed, err := e.decode(text); err == nil && looksSigned(signed) {
			return signed, e.name, nil
		}
	}
	if bytes.ContainsFunc(content, func(r rune) bool { return r < ' ' && !strings.ContainsRune("\t\r\n", r) || r > '~' }) {
		return content, "", nil // binary: the verifier's error says what is wrong
	}
	return nil, "", errors.New("is not an attestation document: want a COSE_Sign1 structure, plain or in base64, base64url or hex")
}

// looksSigned reports whether bytes begin as a COSE_Sign1 structure, untagged or tagged (RFC 9052, section 4.2). No text
// in the encodings above does.
func looksSigned(b []byte) bool { return len(b) > 0 && (b[0] == 0x84 || b[0] == 0xd2) }
