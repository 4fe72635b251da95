package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/mdlayher/vsock"
	"github.com/spf13/cobra"

	"github.com/nesim/nesim/attest"
	"github.com/nesim/nesim/attest/kms"
	"github.com/nesim/nesim/attest/nsm"
	"github.com/nesim/nesim/attest/pki"
	"github.com/nesim/nesim/sim/daemon"
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
		Use:   "serve [--listen ADDRESS] [--vsock-port PORT]",
		Short: "Serve the AWS KMS API to enclaves and their parent",
		Long: "Serve keys by the API of AWS KMS, with key policies that ask for PCRs and with the Recipient parameter, until\n" +
			"ctrl-C. The endpoint is printed, each on a line; give it to an AWS SDK or as --endpoint-url to the AWS CLI.\n\n" +
			"Any credentials will do. Those without a session token are the account's administrator's, those with one\n" +
			"the role's; a session token that is a role's ARN stands for that role. So that a key is for enclaves alone,\n" +
			"use role credentials in them and name the role in the key's policy, as on AWS.\n\n" +
			"The real KMS is reached by TLS. Here it is plain HTTP unless a certificate is given.",
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
	service, err := kms.Open(f.config)
	if err != nil {
		return err
	}
	defer service.Close()
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

// open listens as --listen has it. It also tells where.
func (f *kmsFlags) open() (l net.Listener, endpoint string, err error) {
	if path, ok := strings.CutPrefix(f.listen, "unix:"); ok {
		if l, err = net.Listen("unix", path); err == nil {
			if err = os.Chmod(path, 0o600); err != nil {
				l.Close()
			}
		}
		endpoint = f.listen
	} else if port, ok := strings.CutPrefix(f.listen, "vsock:"); ok {
		n, parseErr := strconv.ParseUint(port, 10, 32)
		if parseErr != nil {
			return nil, "", fmt.Errorf("--listen %s: the port is not a number of 32 bits", f.listen)
		}
		if l, err = vsock.Listen(uint32(n), nil); err == nil {
			endpoint = fmt.Sprintf("vsock:%d:%d", l.Addr().(*vsock.Addr).ContextID, l.Addr().(*vsock.Addr).Port)
		}
	} else if l, err = net.Listen("tcp", f.listen); err == nil {
		endpoint = f.scheme() + "://" + l.Addr().String()
	}
	if err != nil {
		return nil, "", fmt.Errorf("--listen %s: %w", f.listen, err)
	}
	return f.secure(l), endpoint, nil
}

func (f *kmsFlags) scheme() string {
	if f.tlsSetting != nil {
		return "https"
	}
	return "http"
}

// secure makes a listener's connections TLS, if that is asked for.
func (f *kmsFlags) secure(l net.Listener) net.Listener {
	if f.tlsSetting != nil {
		return tls.NewListener(l, f.tlsSetting)
	}
	return l
}

// parentListener listens on a port of the simulated parent. The daemon gives one connection
// for each time that it is asked.
type parentListener struct {
	ctx    context.Context
	cancel context.CancelFunc
	client *daemon.Client
	port   uint32
}

func listenOnParent(ctx context.Context, c *daemon.Client, port uint32) net.Listener {
	ctx, cancel := context.WithCancel(ctx)
	return &parentListener{ctx, cancel, c, port}
}

func (l *parentListener) Accept() (net.Conn, error) {
	stream, err := l.client.AcceptKept(l.ctx, l.port)
	switch {
	case l.ctx.Err() != nil:
		if err == nil {
			stream.Close()
		}
		return nil, net.ErrClosed
	case err != nil:
		return nil, fmt.Errorf("--vsock-port %d: %w", l.port, err)
	}
	return stream, nil
}

func (l *parentListener) Close() error { l.cancel(); return nil }

func (l *parentListener) Addr() net.Addr { return &vsock.Addr{ContextID: vsockParent, Port: l.port} }
