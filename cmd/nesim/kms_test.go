package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/sim/daemon"
	"github.com/nesim/nesim/sim/instance"
)

// kmsServer is a nesim kms serve that runs.
type kmsServer struct {
	*user
	endpoints []string
	end       func() (told string) // interrupts it, and returns what it wrote to the standard error
	kill      func()
}

// serveKMS starts nesim kms serve and reads its endpoints. It is interrupted at the test's end, if not before.
func (u *user) serveKMS(endpoints int, args ...string) *kmsServer {
	u.Helper()
	cmd := u.command(context.Background(), append([]string{"kms", "serve"}, args...)...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	require.NoError(u, err)
	require.NoError(u, cmd.Start())
	s := &kmsServer{user: u}
	ended := false
	s.end = func() string {
		if !ended {
			ended = true
			cmd.Process.Signal(syscall.SIGINT)
			require.NoError(u, cmd.Wait(), errs.String())
		}
		return errs.String()
	}
	s.kill = func() {
		ended = true
		require.NoError(u, cmd.Process.Kill())
		require.Error(u, cmd.Wait())
	}
	u.Cleanup(func() { s.end() })
	lines := bufio.NewScanner(out)
	for range endpoints {
		if !lines.Scan() {
			ended = true
			require.NoError(u, cmd.Wait(), errs.String())
		}
		s.endpoints = append(s.endpoints, lines.Text())
	}
	return s
}

// client is the SDK's for an endpoint, reached by dial if there is one.
func (s *kmsServer) client(endpoint string, transport *http.Transport) *kms.Client {
	s.Cleanup(transport.CloseIdleConnections)
	return kms.New(kms.Options{
		Region: "eu-west-1", BaseEndpoint: &endpoint, HTTPClient: &http.Client{Transport: transport},
		Credentials: credentials.NewStaticCredentialsProvider("any", "any", ""),
	})
}

func TestKeysAreServedUntilTheServiceIsInterrupted(t *testing.T) {
	u := newUser(t)
	s := u.serveKMS(1, "--listen", "127.0.0.1:0", "--region", "eu-west-1")
	require.True(t, strings.HasPrefix(s.endpoints[0], "http://127.0.0.1:"), s.endpoints[0])
	c := s.client(s.endpoints[0], &http.Transport{})
	made, err := c.CreateKey(t.Context(), &kms.CreateKeyInput{})
	require.NoError(t, err)
	require.Contains(t, *made.KeyMetadata.Arn, "arn:aws:kms:eu-west-1:123456789012:key/")
	encrypted, err := c.Encrypt(t.Context(), &kms.EncryptInput{KeyId: made.KeyMetadata.KeyId, Plaintext: []byte("a secret")})
	require.NoError(t, err)
	require.FileExists(t, filepath.Join(u.dir, "data", "nesim", "kms", *made.KeyMetadata.KeyId+".key"))

	require.Contains(t, u.refused("kms", "serve", "--listen", "127.0.0.1:0"), "in use")
	s.end()

	socket := filepath.Join(u.dir, "kms.sock")
	s = u.serveKMS(1, "--listen", "unix:"+socket, "--region", "eu-west-1")
	require.Equal(t, "unix:"+socket, s.endpoints[0])
	info, err := os.Stat(socket)
	require.NoError(t, err)
	require.Equal(t, os.ModeSocket|0o600, info.Mode())
	c = s.client("http://kms", &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", socket) }})
	opened, err := c.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: encrypted.CiphertextBlob})
	require.NoError(t, err)
	require.Equal(t, "a secret", string(opened.Plaintext))
	require.Empty(t, s.end(), "nothing to warn of")
	require.NoFileExists(t, socket)
}

func TestTheServerSaysWhoNeedsNoCredentials(t *testing.T) {
	u := newUser(t)
	socket := "unix:" + filepath.Join(u.dir, "kms.sock")
	for _, test := range []struct {
		says string
		args []string
	}{
		{"every user of this machine can administer and use all keys", []string{"--listen", "127.0.0.1:0"}},
		{"everybody who can reach 0.0.0.0:0 can", []string{"--listen", "0.0.0.0:0"}},
		{"", []string{"--listen", socket}},
		{"", []string{"--listen", "127.0.0.1:0", "--access-key", "AKIA:secret"}},
	} {
		told := u.serveKMS(1, test.args...).end()
		require.Equal(t, test.says != "", told != "", told)
		require.Contains(t, told, test.says)
		require.LessOrEqual(t, strings.Count(told, "\n"), 1)
	}
	told := u.serveKMS(2, "--listen", socket, "--vsock-port", "8000").end()
	require.Contains(t, told, "every program in an enclave can")
}

func TestASocketOfAKilledServerIsTakenAgain(t *testing.T) {
	u := newUser(t)
	socket := filepath.Join(u.dir, "kms.sock")
	s := u.serveKMS(1, "--listen", "unix:"+socket)
	require.Contains(t, u.refused("kms", "serve", "--dir", filepath.Join(u.dir, "other"), "--listen", "unix:"+socket), "another server listens there")
	s.kill()
	require.FileExists(t, socket)

	s = u.serveKMS(1, "--listen", "unix:"+socket)
	info, err := os.Stat(socket)
	require.NoError(t, err)
	require.Equal(t, os.ModeSocket|0o600, info.Mode())
	s.end()
	require.NoFileExists(t, socket)

	require.NoError(t, os.WriteFile(socket, []byte("a file"), 0o600))
	require.Contains(t, u.refused("kms", "serve", "--listen", "unix:"+socket), "it is not a socket")
	require.FileExists(t, socket)
	link := filepath.Join(u.dir, "link.sock")
	require.NoError(t, os.Symlink("nowhere", link))
	require.Contains(t, u.refused("kms", "serve", "--listen", "unix:"+link), "it is not a socket")
}

// as is the SDK's client with an access key.
func (s *kmsServer) as(id, secret, token string) *kms.Client {
	transport := &http.Transport{}
	s.Cleanup(transport.CloseIdleConnections)
	return kms.New(kms.Options{
		Region: "us-east-1", BaseEndpoint: &s.endpoints[0], HTTPClient: &http.Client{Transport: transport}, RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(id, secret, token),
	})
}

func TestWithAccessKeysRequestsMustBeSigned(t *testing.T) {
	u := newUser(t)
	file := filepath.Join(u.dir, "keys")
	require.NoError(t, os.WriteFile(file, []byte("# of the enclaves\n\nASIAROLE:temporary\n"), 0o644))
	serve := []string{"--listen", "127.0.0.1:0", "--access-key", "AKIAALICE:a/secret:", "--access-key", "@" + file}
	require.Contains(t, u.refused(append([]string{"kms", "serve"}, serve...)...), "chmod 600 "+file)
	require.NoError(t, os.Chmod(file, 0o600))
	s := u.serveKMS(1, serve...)

	key, err := s.as("AKIAALICE", "a/secret:", "").CreateKey(t.Context(), &kms.CreateKeyInput{})
	require.NoError(t, err)
	_, err = s.as("AKIAALICE", "a secret", "").ListKeys(t.Context(), &kms.ListKeysInput{})
	require.ErrorContains(t, err, "InvalidSignatureException")
	_, err = s.as("AKIABOB", "a/secret:", "").ListKeys(t.Context(), &kms.ListKeysInput{})
	require.ErrorContains(t, err, "UnrecognizedClientException")
	_, err = s.as("ASIAROLE", "temporary", "any").DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: key.KeyMetadata.KeyId})
	require.ErrorContains(t, err, "AccessDeniedException")
	answer, err := http.Post(s.endpoints[0], "application/x-amz-json-1.1", strings.NewReader(`{}`))
	require.NoError(t, err)
	answer.Body.Close()
	require.Equal(t, 400, answer.StatusCode)

	lines := strings.Split(strings.TrimSpace(s.end()), "\n")
	require.Len(t, lines, 4, "one for each denial")
	require.Contains(t, lines[0], "the signature with the access key")
	require.Contains(t, lines[1], "AKIABOB")
	require.Contains(t, lines[2], "no statement allows the action to this principal")
	require.Contains(t, lines[3], "not signed")
	require.NotContains(t, strings.Join(lines, ""), "a/secret")
}

func TestAPageWhoseNameResolvesToThisMachineIsNotServed(t *testing.T) {
	u := newUser(t)
	s := u.serveKMS(1, "--listen", "127.0.0.1:0", "--host", "kms.test")
	ask := func(host string) int {
		r, err := http.NewRequestWithContext(t.Context(), "POST", s.endpoints[0], strings.NewReader(`{}`))
		require.NoError(t, err)
		r.Host = host
		r.Header.Set("X-Amz-Target", "TrentService.ListKeys")
		answer, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		answer.Body.Close()
		return answer.StatusCode
	}
	for host, status := range map[string]int{"": 200, "localhost": 200, "kms.test:80": 200, "attacker.example": 400, "attacker.example:4599": 400} {
		require.Equal(t, status, ask(host), host)
	}
	require.Contains(t, s.end(), "attacker.example")
}

func TestKeysAreServedByTLS(t *testing.T) {
	u := newUser(t)
	certificate, pool := selfSigned(t, u.dir)
	s := u.serveKMS(1, "--listen", "127.0.0.1:0", "--tls-cert", certificate, "--tls-key", certificate)
	require.True(t, strings.HasPrefix(s.endpoints[0], "https://"), s.endpoints[0])
	c := s.client(s.endpoints[0], &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}})
	_, err := c.ListKeys(t.Context(), &kms.ListKeysInput{})
	require.NoError(t, err)
}

// selfSigned makes a certificate for 127.0.0.1, in a file with its key.
func selfSigned(t *testing.T, dir string) (file string, pool *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kms"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	file = filepath.Join(dir, "tls.pem")
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})...)
	require.NoError(t, os.WriteFile(file, text, 0o600))
	pool = x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(text))
	return file, pool
}

func TestKeysAreServedOnTheParentsVsock(t *testing.T) {
	u := newUser(t)
	s := u.serveKMS(2, "--listen", "127.0.0.1:0", "--vsock-port", "8000")
	require.Equal(t, "vsock:3:8000", s.endpoints[1])
	parent := daemon.NewClient(u.dir)
	c := s.client("http://kms", &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return parent.DialVsock(ctx, 3, 8000, true)
	}})
	for range 3 { // a connection each
		_, err := c.GenerateRandom(t.Context(), &kms.GenerateRandomInput{NumberOfBytes: aws.Int32(16)})
		require.NoError(t, err)
	}
	held, err := parent.DialVsock(t.Context(), 3, 8000, true)
	require.NoError(t, err)
	_, err = c.ListKeys(t.Context(), &kms.ListKeysInput{}) // while another says nothing
	require.NoError(t, err)
	s.end()
	_, err = held.Read(make([]byte, 1))
	require.Error(t, err)
	require.NoError(t, held.Close())

	again := u.serveKMS(2, "--listen", "127.0.0.1:0", "--vsock-port", "8000") // the port is free
	_, err = c.ListKeys(t.Context(), &kms.ListKeysInput{})
	require.NoError(t, err)
	again.end()
}

// policy lets the parent's role decrypt with a key for enclaves of an instance, and the account do all.
func policy(instancePCR string) string {
	return `{"Version": "2012-10-17", "Statement": [
		{"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::123456789012:root"}, "Action": "kms:*", "Resource": "*"},
		{"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::123456789012:role/nesim"}, "Action": "kms:Decrypt", "Resource": "*",
		 "Condition": {"StringEqualsIgnoreCase": {"kms:RecipientAttestation:PCR4": "` + instancePCR + `"}}}]}`
}

func TestAnEnclaveDecryptsByItsAttestation(t *testing.T) {
	u := newUser(t)
	s := u.serveKMS(2, "--listen", "127.0.0.1:0", "--vsock-port", "8000")
	c := s.client(s.endpoints[0], &http.Transport{})
	key, err := c.CreateKey(t.Context(), &kms.CreateKeyInput{Policy: aws.String(policy(extended(instance.InstanceID)))})
	require.NoError(t, err)
	sealed, err := c.Encrypt(t.Context(), &kms.EncryptInput{KeyId: key.KeyMetadata.KeyId, Plaintext: []byte("open sesame")})
	require.NoError(t, err)

	rootfs := buildGuest(t, "../../attest/kms/testdata/kmsguest")
	args := strings.Join([]string{"8000", "any", "any", base64.StdEncoding.EncodeToString(sealed.CiphertextBlob)}, "\n")
	require.NoError(t, os.WriteFile(filepath.Join(rootfs, "kmsguest.args"), []byte(args), 0o644))
	image := u.build(rootfs)
	info := u.runImage(image)
	require.Contains(t, u.waitConsole(info.ID, "kms: done"), "kms: secret open sesame")

	_, err = c.PutKeyPolicy(t.Context(), &kms.PutKeyPolicyInput{KeyId: key.KeyMetadata.KeyId, Policy: aws.String(policy(extended("i-another")))})
	require.NoError(t, err)
	u.must("terminate-enclave", "--enclave-id", info.ID)
	info = u.runImage(image)
	text := u.waitConsole(info.ID, "kms: done")
	require.Contains(t, text, "kms: refused")
	require.Contains(t, text, "AccessDeniedException")
	told := s.end()
	require.Contains(t, told, "StringEqualsIgnoreCase kms:RecipientAttestation:PCR4 wants")
	require.Contains(t, told, extended(instance.InstanceID), "what the document has")
}

func TestBadCommandLinesOfTheKMSAreRefused(t *testing.T) {
	u := newUser(t)
	for says, args := range map[string][]string{
		"--listen nowhere":    {"--listen", "nowhere"},
		"--listen vsock:x":    {"--listen", "vsock:x"},
		"no/such.pem":         {"--root", "no/such.pem"},
		"region":              {"--region", "Mars"},
		"role":                {"--role-arn", "nobody"},
		"--clock":             {"--clock", "noon"},
		"[E01] --tls-key":     {"--tls-cert", "a.pem"},
		"--tls-cert a.pem":    {"--tls-cert", "a.pem", "--tls-key", "a.pem"},
		"not a whole number":  {"--vsock-port", "-1"},
		"unexpected argument": {"more"},
		"--dir":               {"--dir", "/dev/null/x"},
		`role ""`:             {"--role-arn", ""},
		"want ID:SECRET":      {"--access-key", "AKIA"},
		"given twice":         {"--access-key", "AKIA:a", "--access-key", "AKIA:b"},
		"no/such/keys":        {"--access-key", "@no/such/keys"},
		"without a port":      {"--host", "kms:4599"},
		"path of a socket":    {"--listen", "unix:"},
		"want the path":       {"--listen", "unix:@abstract"},
		"at most 107":         {"--listen", "unix:/tmp/" + strings.Repeat("x", 200)},
	} {
		told := u.refused(append([]string{"kms", "serve"}, args...)...)
		if says == "--dir" {
			says = "/dev/null"
		}
		require.Contains(t, told, says, "%v", args)
	}
}
