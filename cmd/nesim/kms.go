package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/nesim/nesim/attest"
	"github.com/nesim/nesim/attest/kms"
	"github.com/nesim/nesim/attest/nsm"
	"github.com/nesim/nesim/attest/pki"
	"github.com/nesim/nesim/sim/instance"
)

func kmsCommand() *cobra.Command {
	cmd := group(&cobra.Command{Use: "kms", Short: "Simulate AWS KMS for enclaves"})
	cmd.AddCommand(kmsServe())
	return cmd
}

// kmsFlags are those of nesim kms serve.
type kmsFlags struct {
	config     kms.Config
	roots      []string
	accessKeys []string
	hosts      []string
	listen     string
	vsockPort  uint32
	cert, key  string
	clock      string
	hasVsock   bool
	tlsSetting *tls.Config
}

func kmsServe() *cobra.Command {
	var f kmsFlags
	cmd := &cobra.Command{
		Use:   "serve [--listen ADDRESS] [--vsock-port PORT] [--access-key ID:SECRET]",
		Short: "Serve the AWS KMS API to enclaves and their parent",
		Long: "Serve the API of AWS KMS until ctrl-C, with the Recipient parameter and with PCR conditions in key policies. Each\n" +
			"endpoint is printed on a line. Use it in an AWS SDK, or as --endpoint-url of the AWS CLI.\n\n" +
			"Without --access-key the service accepts any credentials: every user of this machine can administer and use\n" +
			"the keys over TCP. With it, requests must be signed (AWS Signature Version 4) with one of the keys. Only the\n" +
			"user can connect to the socket of --listen unix:PATH.\n\n" +
			"A request without a session token comes from the administrator of the account, one with a session token from\n" +
			"the role of --role-arn, or from the role whose ARN the token is. To reserve a key for enclaves, use role\n" +
			"credentials in them and name the role in the key policy, as on AWS. Each denial is logged with the condition\n" +
			"that failed.\n\n" +
			"The real KMS uses TLS. This service uses plain HTTP unless --tls-cert is given.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.hasVsock = cmd.Flags().Changed("vsock-port")
			return f.serve(cmd)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.listen, "listen", "127.0.0.1:4599", "address to serve on: HOST:PORT, unix:PATH, or vsock:PORT for this machine's vsock")
	flags.Uint32Var(&f.vsockPort, "vsock-port", 0, "vsock port of the simulated parent (CID 3) to serve enclaves on as well")
	flags.StringVar(&f.config.Dir, "dir", "", "folder of the keys (default: kms in nesim's data folder)")
	flags.StringArrayVar(&f.roots, "root", nil, "trusted root certificate of attestation, a PEM file; can be repeated (default: the user's own root)")
	flags.StringArrayVar(&f.accessKeys, "access-key", nil, "ID:SECRET to check signatures with, or @FILE with one a line, hidden from the process list; can be repeated")
	flags.StringArrayVar(&f.hosts, "host", nil, "host name by which clients on other machines or in containers reach the service; can be repeated")
	flags.StringVar(&f.config.Region, "region", "us-east-1", "region in the ARNs of the keys")
	flags.StringVar(&f.config.RoleARN, "role-arn", nsm.DefaultRoleARN, "IAM role of callers with a session token; the keys belong to its account")
	flags.StringVar(&f.clock, "clock", "", "time at which documents are verified, as 2006-01-02T15:04:05Z (default: now)")
	flags.StringVar(&f.cert, "tls-cert", "", "certificate with its chain, a PEM file: serve TLS")
	flags.StringVar(&f.key, "tls-key", "", "private key of --tls-cert, a PEM file")
	together(cmd, "tls-cert", "tls-key")
	return cmd
}

func (f *kmsFlags) serve(cmd *cobra.Command) error {
	if err := f.read(); err != nil {
		return err
	}
	f.config.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: logLevel(cmd)}))
	service, err := kms.Open(f.config)
	if err != nil {
		return err
	}
	defer service.Close()
	f.warn(cmd.ErrOrStderr())
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	listener, endpoint, err := f.open()
	if err != nil {
		return err
	}
	listeners, endpoints := []net.Listener{listener}, []string{endpoint}
	if f.hasVsock {
		c, err := runningClient(ctx)
		if err != nil {
			listener.Close()
			return err
		}
		endpoints = append(endpoints, fmt.Sprintf("vsock:%d:%d", vsockParent, f.vsockPort))
		listeners = append(listeners, f.secure(listenOnParent(ctx, c, f.vsockPort)))
	}
	for _, endpoint := range endpoints {
		fmt.Fprintln(cmd.OutOrStdout(), endpoint)
	}
	return service.Serve(ctx, listeners...)
}

// vsockParent is the CID by which enclaves reach their parent.
const vsockParent = 3

// read makes of the flags what they stand for.
func (f *kmsFlags) read() error {
	own, err := instance.OpenRoot("", "")
	if err != nil {
		return err
	}
	if f.config.Owner, err = own.Derive("kms"); err != nil {
		return err
	}
	f.config.Roots = []attest.Fingerprint{attest.FingerprintOf(own.Root())}
	if len(f.roots) > 0 {
		if f.config.Roots, err = trusted(f.roots); err != nil {
			return err
		}
	}
	if f.config.Dir == "" {
		dir, err := pki.DefaultDir()
		if err != nil {
			return err
		}
		f.config.Dir = filepath.Join(dir, "kms")
	}
	if f.config.AccessKeys, err = readAccessKeys(f.accessKeys); err != nil {
		return err
	}
	if f.config.Hosts, err = f.names(); err != nil {
		return err
	}
	at, err := parseTime("clock", f.clock)
	if err != nil {
		return err
	}
	if began := time.Now(); !at.IsZero() {
		f.config.Clock = func() time.Time { return at.Add(time.Since(began)) }
	}
	if f.cert == "" {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return fmt.Errorf("--tls-cert %s: %w", f.cert, err)
	}
	f.tlsSetting = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	return nil
}
