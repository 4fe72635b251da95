package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/nesim/nesim/eif"
	"github.com/nesim/nesim/internal/files"
	"github.com/nesim/nesim/sim/errcode"
)

func signEIF() *cobra.Command {
	var path string
	var keys signingFlags
	cmd := &cobra.Command{
		Use:   "sign-eif (FILE | --eif-path FILE) --signing-certificate FILE (--private-key KEY | --signer-command COMMAND)",
		Short: "Sign an Enclave Image File",
		Long: "Sign an Enclave Image File, replacing any existing signature. The file is replaced atomically. The key must be\n" +
			"on P-256, P-384 or P-521. It is a PEM file, a key in AWS KMS (give its ARN; the aws program signs), or held\n" +
			"by a command that signs.\n\n" + signerCommandHelp,
		Example: signerCommandExample,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if path == "" {
				return errcode.New(errcode.MissingArgument, "--eif-path is missing: see %s --help", cmd.CommandPath())
			}
			signer, err := keys.signer(cmd.Context(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			measurements, err := signFile(cmd.Context(), path, signer)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.ErrOrStderr(), "Enclave Image successfully signed.")
			return show(cmd, built{measurements}, func(p *printer) { p.measurements(measurements) })
		},
	}
	cmd.Flags().StringVar(&path, "eif-path", "", "Enclave Image File to sign")
	fileOperand(cmd)
	_ = cmd.MarkFlagFilename("eif-path", "eif")
	keys.add(cmd)
	return cmd
}

// signingFlags are the flags that say what an image is signed with.
type signingFlags struct {
	certificate, key, command string
}

// add adds the flags to a command.
func (s *signingFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.certificate, "signing-certificate", "", "signing certificate, a PEM file")
	cmd.Flags().StringVar(&s.key, "private-key", "", "private key of the signing certificate: a PEM file, or the ARN of an AWS KMS key")
	cmd.Flags().StringVar(&s.command, "signer-command", "", "command that signs, instead of --private-key")
	_ = cmd.MarkFlagFilename("signing-certificate", "pem", "crt")
	_ = cmd.MarkFlagFilename("private-key", "pem", "key")
	before(cmd, func() error {
		set := given(cmd, []string{"signing-certificate", "private-key", "signer-command"})
		switch {
		case len(set) == 0:
			return nil
		case s.key != "" && s.command != "":
			return conflicting(cmd, "private-key", "signer-command")
		case s.certificate == "":
			return missing(cmd, "signing-certificate")
		case s.key == "" && s.command == "":
			return missing(cmd, "private-key", "signer-command")
		}
		return nil
	})
}

// given reports whether an image is to be signed at all.
func (s *signingFlags) given() bool { return s.certificate != "" }

// signer makes the signer that the flags describe. A certificate out of its dates is only warned of: its images are
// refused when they are run.
func (s *signingFlags) signer(ctx context.Context, warnings io.Writer) (*eif.Signer, error) {
	if !s.given() {
		return nil, errcode.New(errcode.EIFSigning, "no key to sign with: give --signing-certificate, and --private-key or --signer-command")
	}
	text, err := readPEM(s.certificate)
	if err != nil {
		return nil, errcode.New(errcode.EIFSigning, "read the signing certificate: %w", uncoded(err))
	}
	cert, err := eif.ParseCertificate(text)
	if err != nil {
		return nil, errcode.New(errcode.EIFSigning, "%s: %w", s.certificate, err)
	}
	if err := eif.CheckValidity(cert, time.Now()); err != nil {
		fmt.Fprintf(warnings, "warning: %v: run-enclave will refuse the image\n", err)
	}
	signer, err := s.newSigner(ctx, cert, text)
	return signer, errcode.Wrap(errcode.EIFSigning, err)
}

func (s *signingFlags) newSigner(ctx context.Context, cert *x509.Certificate, text []byte) (*eif.Signer, error) {
	if s.command != "" {
		return eif.NewSigner(&hookSigner{ctx: ctx, public: cert.PublicKey, run: shellHook(s.command)}, text)
	}
	if region, ok := kmsRegion(s.key); ok {
		return eif.NewSigner(&hookSigner{ctx: ctx, public: cert.PublicKey, run: kmsHook(s.key, region)}, text)
	}
	raw, err := readPEM(s.key)
	if err != nil {
		return nil, fmt.Errorf("read the private key: %w", uncoded(err))
	}
	key, err := eif.ParsePrivateKey(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.key, err)
	}
	return eif.NewSigner(key, text)
}

// uncoded takes an error's code from it: a key's file that is missing is E60, as from nitro-cli, not E19.
func uncoded(err error) error {
	if e, ok := err.(*errcode.Error); ok {
		return e.Err
	}
	return err
}

// signFile replaces the file by its signed image, whole or not at all.
func signFile(ctx context.Context, path string, signer *eif.Signer) (m eif.Measurements, err error) {
	from, size, err := openEIF(path)
	if err != nil {
		return m, err
	}
	defer from.Close()
	img, err := eif.Open(from, size)
	if err != nil {
		return m, errcode.New(errcode.EIFParsing, "%s: %w", path, err)
	}
	var signing error
	err = files.WriteTo(path, 0o666, func(to *os.File) error {
		m, signing = img.Resign(ctx, to, signer)
		return signing
	})
	if signing != nil {
		return m, errcode.New(errcode.EIFSigning, "%s: %w", path, signing)
	}
	return m, errcode.Wrap(errcode.FileOperationFailure, err)
}
