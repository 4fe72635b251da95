package main

import (
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/nesim/nesim/eif"
	"github.com/nesim/nesim/sim/errcode"
)

// maxPEM bounds the files with keys and certificates that are read, in bytes.
const maxPEM = 1 << 20

func pcr() *cobra.Command {
	var input, certificate string
	cmd := &cobra.Command{
		Use:   "pcr (--input FILE | --signing-certificate FILE)",
		Short: "Print the PCR of a file, or PCR8 of a certificate",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			name, measure, path := "PCR", filePCR, input
			if certificate != "" {
				name, measure, path = "PCR8", certificatePCR, certificate
			}
			digest, err := measure(path)
			if err != nil {
				return err
			}
			return show(cmd, map[string]eif.Digest{name: digest}, func(p *printer) { p.fields([2]string{name, digest.String()}) })
		},
	}
	cmd.Flags().StringVar(&input, "input", "", "file to measure")
	cmd.Flags().StringVar(&certificate, "signing-certificate", "", "signing certificate in PEM, to print PCR8 of the images signed with it")
	exactlyOne(cmd, "input", "signing-certificate")
	return cmd
}

func filePCR(path string) (digest eif.Digest, err error) {
	f, err := os.Open(path)
	if err != nil {
		return digest, errcode.Wrap(errcode.FileOperationFailure, err)
	}
	defer f.Close()
	digest, err = eif.PCR(f)
	return digest, errcode.Wrap(errcode.FileOperationFailure, err)
}

func certificatePCR(path string) (digest eif.Digest, err error) {
	text, err := readPEM(path)
	if err != nil {
		return digest, err
	}
	cert, err := eif.ParseCertificate(text)
	if err != nil {
		return digest, errcode.New(errcode.Hasher, "%s: %w", path, err)
	}
	return eif.CertificatePCR(cert), nil
}

// readPEM reads a small file whole.
func readPEM(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, errcode.Wrap(errcode.FileOperationFailure, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err != nil {
		return nil, errcode.Wrap(errcode.FileOperationFailure, err)
	}
	if len(text) > maxPEM {
		return nil, errcode.New(errcode.FileOperationFailure, "%s has more than %d bytes: it is not a key or certificate in PEM", path, maxPEM)
	}
	return text, nil
}
