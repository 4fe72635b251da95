package main

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/nesim/nesim/attest/nsm"
	"github.com/nesim/nesim/attest/pki"
	"github.com/nesim/nesim/eif"
	"github.com/nesim/nesim/internal/files"
	"github.com/nesim/nesim/sim/instance"
)

// nsmFlags are the flags that shape an NSM. The returned function reads the one that is a time.
func nsmFlags(flags *pflag.FlagSet, c *instance.NSMConfig, id *string) func() error {
	var clock string
	flags.StringVar(id, "instance-id", instance.InstanceID, "EC2 instance ID of the parent, which PCR4 measures")
	flags.StringVar(&c.RoleARN, "role-arn", nsm.DefaultRoleARN, "ARN of the IAM role of the parent, which PCR3 measures (\"\": no role, and PCR3 is zero)")
	flags.StringVar(&c.Region, "region", "us-east-1", "region in the names of the certificates")
	flags.StringVar(&clock, "clock", "", "time in attestation documents, as 2006-01-02T15:04:05Z (default: now)")
	flags.DurationVar(&c.LeafValidity, "certificate-validity", pki.LeafValidity, "validity of the certificates that sign documents")
	return func() (err error) {
		c.Clock, err = parseTime("clock", clock)
		return err
	}
}

func attestDocument() *cobra.Command {
	var cfg instance.NSMConfig
	var id, eifPath, output, nonce, userData, publicKey string
	var debug, text bool
	cmd := &cobra.Command{
		Use:   "document --eif-path FILE",
		Short: "Create an attestation document without an enclave",
		Args:  cobra.NoArgs,
	}
	flags := cmd.Flags()
	flags.StringVar(&eifPath, "eif-path", "", "Enclave Image File whose measurements the document has")
	flags.BoolVar(&debug, "debug-mode", false, "create the document of an enclave in debug mode")
	flags.StringVar(&nonce, "nonce", "", "nonce, in hex")
	flags.StringVar(&userData, "user-data", "", "file with the user data")
	flags.StringVar(&publicKey, "public-key", "", "file with the public key, in PEM or DER")
	flags.StringVar(&output, "output", "", "file to write (default: standard output)")
	flags.BoolVar(&text, "base64", false, "write the document in base64")
	flags.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "eif" {
			name = "eif-path"
		}
		return pflag.NormalizedName(name)
	})
	readClock := nsmFlags(flags, &cfg, &id)
	rootFlags(cmd, &cfg)
	_ = cmd.MarkFlagRequired("eif-path")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := readClock(); err != nil {
			return err
		}
		measured, err := measureImage(cmd, eifPath)
		if err != nil {
			return err
		}
		module, err := instance.NewNSM(cfg, id, measured, debug)
		if err != nil {
			return err
		}
		fields, err := readFields(nonce, userData, publicKey)
		if err != nil {
			return err
		}
		signed, err := module.Attestation(fields.userData, fields.nonce, fields.publicKey)
		if err != nil {
			return fmt.Errorf("create the document: %w", err)
		}
		if text {
			signed = append([]byte(base64.StdEncoding.EncodeToString(signed)), '\n')
		}
		if output != "" {
			return files.Write(output, signed, 0o644)
		}
		if !text && isTerminal(cmd.OutOrStdout()) {
			return errors.New("the document is binary: give --output FILE or --base64")
		}
		_, err = cmd.OutOrStdout().Write(signed)
		return err
	}
	return cmd
}

func measureImage(cmd *cobra.Command, path string) (measured eif.Measurements, err error) {
	f, err := os.Open(path)
	if err != nil {
		return measured, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return measured, err
	}
	image, err := eif.Open(f, info.Size())
	if err == nil {
		measured, err = image.Measure(cmd.Context())
	}
	if err != nil {
		return measured, fmt.Errorf("%s: %w", path, err)
	}
	return measured, nil
}

// fields are what an enclave may put into its document.
type fields struct{ userData, nonce, publicKey []byte }

func readFields(nonce, userData, publicKey string) (f fields, err error) {
	if nonce != "" {
		if f.nonce, err = hex.DecodeString(nonce); err != nil {
			return f, fmt.Errorf("--nonce: %w", err)
		}
	}
	if userData != "" {
		if f.userData, err = readSmall(userData); err != nil {
			return f, err
		}
	}
	if publicKey != "" {
		if f.publicKey, err = readSmall(publicKey); err != nil {
			return f, err
		}
		if block, _ := pem.Decode(f.publicKey); block != nil {
			f.publicKey = block.Bytes
		}
	}
	return f, nil
}

// readSmall reads what fits into a document, and a little more, which the NSM refuses.
func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, nsm.MaxRequest))
}
