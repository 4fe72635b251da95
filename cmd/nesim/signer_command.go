package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"
)

const signerCommandHelp = "The command of --signer-command is run with sh -c. It reads the digest to sign, in hex, from standard input;\n" +
	"$NESIM_DIGEST_ALGORITHM is SHA-256, SHA-384 or SHA-512. It prints the ECDSA signature in DER. Any PKCS#11 or KMS\n" +
	"tool can thus hold the key. nesim verifies the signature with the certificate."

const signerCommandExample = `  nesim sign-eif --eif-path hello.eif --signing-certificate cert.pem --private-key key.pem
  nesim sign-eif --eif-path hello.eif --signing-certificate cert.pem --signer-command \
    'xxd -r -p | openssl pkeyutl -sign -inkey key.pem'
  nesim sign-eif --eif-path hello.eif --signing-certificate cert.pem --signer-command \
    'xxd -r -p | pkcs11-tool --sign --mechanism ECDSA --signature-format openssl --label enclave'`

// maxSignature bounds what a command may print: a DER signature on P-521 has 139 bytes.
const maxSignature = 4096

// hook signs a digest elsewhere and returns the signature in DER. algorithm is as in NESIM_DIGEST_ALGORITHM.
type hook func(ctx context.Context, digest []byte, algorithm string) ([]byte, error)

// hookSigner is a crypto.Signer whose key is elsewhere.
type hookSigner struct {
	ctx    context.Context
	public crypto.PublicKey // the certificate's
	run    hook
}

func (s *hookSigner) Public() crypto.PublicKey { return s.public }

// Sign has the hook sign, and checks what it did.
func (s *hookSigner) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	signature, err := s.run(s.ctx, digest, fmt.Sprintf("SHA-%d", 8*len(digest)))
	if err != nil {
		return nil, err
	}
	key, ok := s.public.(*ecdsa.PublicKey)
	if !ok || !ecdsa.VerifyASN1(key, digest, signature) {
		return nil, errors.New("the output of the command is not a DER signature of the digest by the certificate's key")
	}
	return signature, nil
}

// shellHook is --signer-command.
func shellHook(command string) hook {
	return func(ctx context.Context, digest []byte, algorithm string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, "sh", "-c", command)
		cmd.Env = append(os.Environ(), "NESIM_DIGEST_ALGORITHM="+algorithm)
		cmd.Stdin = strings.NewReader(hex.EncodeToString(digest) + "\n")
		signature, err := output(cmd)
		if err != nil {
			return nil, fmt.Errorf("the signer command failed: %w", err)
		}
		return signature, nil
	}
}

// kmsARN is the ARN of a KMS key as nitro-cli takes it; the group is the region.
var kmsARN = regexp.MustCompile(`^arn:(?:aws|aws-cn|aws-us-gov):kms:([a-z0-9-]+):\d{12}:key[:/][a-zA-Z0-9-]+$`)

// kmsRegion returns the region of a KMS key's ARN, and false for what is none.
func kmsRegion(key string) (string, bool) {
	match := kmsARN.FindStringSubmatch(key)
	if match == nil {
		return "", false
	}
	return match[1], true
}

// kmsHook has AWS KMS sign, by the aws program and its credentials.
func kmsHook(arn, region string) hook {
	return func(ctx context.Context, digest []byte, algorithm string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, "aws", "kms", "sign", "--region", region, "--key-id", arn, "--message-type", "DIGEST",
			"--signing-algorithm", "ECDSA_SHA_"+strings.TrimPrefix(algorithm, "SHA-"), "--message", "fileb:///dev/stdin",
			"--output", "text", "--query", "Signature")
		cmd.Stdin = bytes.NewReader(digest)
		text, err := output(cmd)
		if errors.Is(err, exec.ErrNotFound) {
			return nil, errors.New("signing with a KMS key needs the aws program, which is not installed: install it, or use --signer-command")
		}
		if err != nil {
			return nil, fmt.Errorf("aws kms sign failed: %w", err)
		}
		signature, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
		if err != nil {
			return nil, errors.New("aws kms sign did not print a signature in base64")
		}
		return signature, nil
	}
}

// output runs a command and returns what it prints. Its error ends with the last line of its standard error.
func output(cmd *exec.Cmd) ([]byte, error) {
	var out, errs bounded
	cmd.WaitDelay = time.Second // for children that outlive it and hold its output
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		lines := strings.Split(strings.TrimSpace(errs.String()), "\n")
		if last := lines[len(lines)-1]; last != "" {
			err = fmt.Errorf("%w: %s", err, last)
		}
		return nil, err
	}
	return out.Bytes(), nil
}

// bounded keeps the last bytes written to it, at most maxSignature or twice that.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	b.Buffer.Write(p)
	if extra := b.Len() - maxSignature; extra > maxSignature {
		b.Next(extra)
	}
	return len(p), nil
}
