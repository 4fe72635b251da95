package main

import (
	"bytes"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nesim/nesim/attest"
	"github.com/nesim/nesim/eif"
	"github.com/nesim/nesim/sim/instance"
)

func attestCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "attest",
		Short: "Create, print and verify attestation documents",
	})
	cmd.AddCommand(attestRoot(), attestVerify(), attestShow(), attestDocument())
	return cmd
}

// rootFlags are the flags that name a root of the user's own choice.
func rootFlags(cmd *cobra.Command, nsm *instance.NSMConfig) {
	cmd.Flags().StringVar(&nsm.CACert, "ca-cert", "", "root certificate of attestation, a PEM file (default: the user's own root, created when first needed)")
	cmd.Flags().StringVar(&nsm.CAKey, "ca-key", "", "private key of --ca-cert, a PEM file")
	together(cmd, "ca-cert", "ca-key")
}

func attestRoot() *cobra.Command {
	var nsm instance.NSMConfig
	var format string
	cmd := &cobra.Command{
		Use:   "root",
		Short: "Print the root certificate of simulated enclaves",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			root, err := instance.OpenRoot(nsm.CACert, nsm.CAKey)
			if err != nil {
				return err
			}
			switch format {
			case "pem":
				return pem.Encode(cmd.OutOrStdout(), &pem.Block{Type: "CERTIFICATE", Bytes: root.Root().Raw})
			case "der":
				_, err = cmd.OutOrStdout().Write(root.Root().Raw)
				return err
			}
			return fmt.Errorf("unknown format %q: choose pem or der", format)
		},
	}
	cmd.Flags().StringVar(&format, "format", "pem", "output format: pem or der")
	rootFlags(cmd, &nsm)
	return cmd
}

// numPCRs is how many PCRs a flag can name.
const numPCRs = attest.MaxPCRs

func attestVerify() *cobra.Command {
	var roots []string
	var nonce, at string
	var pcrs [numPCRs]string
	cmd := &cobra.Command{
		Use:   "verify DOCUMENT",
		Short: "Verify an attestation document and print it",
		Long: "Verify an attestation document by the rules for those of Nitro Enclaves, and print what it says.\n\n" +
			"The document is a file, or - for the standard input, as it is or in base64, base64url or hex. Trusted are the roots\n" +
			"given, else the user's own and that of real enclaves.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			signed, err := readDocument(cmd, args[0])
			if err != nil {
				return err
			}
			want, err := expectation(roots, nonce, at, pcrs[:])
			if err != nil {
				return err
			}
			document, err := attest.Verify(signed, want)
			if err != nil {
				return fmt.Errorf("%s does not verify: %w", args[0], err)
			}
			return showDocument(cmd, document)
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&roots, "root", nil, "trusted root certificate, a PEM file; can be repeated")
	flags.StringVar(&nonce, "nonce", "", "nonce that the document must have, in hex")
	flags.StringVar(&at, "at", "", "time at which the document must be valid, as 2006-01-02T15:04:05Z (default: now)")
	for i := range pcrs {
		name := fmt.Sprintf("pcr%d", i)
		flags.StringVar(&pcrs[i], name, "", fmt.Sprintf("value of PCR%d that the document must have, in hex", i))
		if i > 4 && i != 8 {
			_ = flags.MarkHidden(name)
		}
	}
	return cmd
}

// expectation is what verify's flags ask for.
func expectation(roots []string, nonce, at string, pcrs []string) (want attest.Expect, err error) {
	if want.Roots, err = trusted(roots); err != nil {
		return want, err
	}
	if want.At, err = parseTime("at", at); err != nil {
		return want, err
	}
	if nonce != "" {
		if want.Nonce, err = hex.DecodeString(nonce); err != nil {
			return want, fmt.Errorf("--nonce: %w", err)
		}
	}
	want.PCRs = make(map[uint64][]byte)
	for i, text := range pcrs {
		if text == "" {
			continue
		}
		if want.PCRs[uint64(i)], err = hex.DecodeString(text); err != nil {
			return want, fmt.Errorf("--pcr%d: %w", i, err)
		}
	}
	return want, nil
}

// trusted gives the roots in PEM files, or those that are trusted without any.
func trusted(files []string) ([]attest.Fingerprint, error) {
	if len(files) == 0 {
		own, err := instance.OpenRoot("", "")
		if err != nil {
			return nil, err
		}
		return []attest.Fingerprint{attest.AWSRoot, attest.FingerprintOf(own.Root())}, nil
	}
	var roots []attest.Fingerprint
	for _, file := range files {
		text, err := readPEM(file)
		if err != nil {
			return nil, err
		}
		certificate, err := eif.ParseCertificate(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		roots = append(roots, attest.FingerprintOf(certificate))
	}
	return roots, nil
}

func attestShow() *cobra.Command {
	return &cobra.Command{
		Use:   "show DOCUMENT",
		Short: "Print an attestation document without verifying it",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			signed, err := readDocument(cmd, args[0])
			if err != nil {
				return err
			}
			document, err := attest.Decode(signed)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			return showDocument(cmd, document)
		},
	}
}

func showDocument(cmd *cobra.Command, d *attest.Document) error {
	return show(cmd, d, func(p *printer) {
		if inDebugMode(d) {
			p.table(nil, [][]cell{{{"debug mode: the image is not attested", yellow}}})
		}
		fields := [][2]string{{"module ID", d.ModuleID}, {"digest", d.Digest}, {"time", d.Time().Format(time.RFC3339Nano)}}
		for i := range uint64(numPCRs) {
			if value := d.PCRs[i]; strings.Trim(hex.EncodeToString(value), "0") != "" {
				fields = append(fields, [2]string{fmt.Sprintf("PCR%d", i), hex.EncodeToString(value)})
			}
		}
		chain, err := d.Chain()
		for i, c := range chain {
			fields = append(fields, [2]string{fmt.Sprintf("certificate %d", i), fmt.Sprintf("%s, from %s to %s",
				c.Subject, c.NotBefore.Format(time.RFC3339), c.NotAfter.Format(time.RFC3339))})
		}
		if err != nil {
			fields = append(fields, [2]string{"certificates", err.Error()})
		}
		p.fields(append(fields, [2]string{"public key", hex.EncodeToString(d.PublicKey)},
			[2]string{"user data", hex.EncodeToString(d.UserData)}, [2]string{"nonce", hex.EncodeToString(d.Nonce)})...)
	})
}

// inDebugMode reports whether a document is of an enclave in debug mode, whose PCR0, PCR1 and PCR2 are zero.
func inDebugMode(d *attest.Document) bool {
	for i := range uint64(3) {
		if len(d.PCRs[i]) == 0 || bytes.ContainsFunc(d.PCRs[i], func(r rune) bool { return r != 0 }) {
			return false
		}
	}
	return true
}

// parseTime reads the time of a flag; an empty one is the zero time.
func parseTime(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, errors.New("--" + flag + " " + text + ": want a time such as 2026-01-31T12:00:00Z")
	}
	return at, nil
}
