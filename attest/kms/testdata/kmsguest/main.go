// Program kmsguest is an enclave's workload that has a KMS on its parent's vsock decrypt a ciphertext for it, by the
// libraries that enclaves written in Go use, and tells on the console how it went. Its last line is "done".
//
//	kmsguest PORT ACCESS-KEY-ID SESSION-TOKEN CIPHERTEXT-IN-BASE64
//
// Without arguments it takes them from the file /kmsguest.args, a line each.
package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/edgebitio/nitro-enclaves-sdk-go/crypto/cms"
	"github.com/hf/nsm"
	"github.com/hf/nsm/request"
	"github.com/mdlayher/vsock"
)

// parent is the CID of every enclave's parent.
const parent = 3

func main() {
	secret, err := decrypt(os.Args[1:])
	if err != nil {
		fmt.Println("kms: refused", strings.ReplaceAll(err.Error(), "\n", " "))
	} else {
		fmt.Printf("kms: secret %s\n", secret)
	}
	fmt.Println("kms: done")
	for { // the console of an enclave that has ended cannot be read
		time.Sleep(time.Hour)
	}
}

func decrypt(args []string) ([]byte, error) {
	if len(args) == 0 {
		text, err := os.ReadFile("/kmsguest.args")
		if err != nil {
			return nil, err
		}
		args = strings.Split(strings.TrimSpace(string(text)), "\n")
	}
	if len(args) != 4 {
		return nil, errors.New("want a port, an access key id, a session token and a ciphertext")
	}
	port, err := strconv.ParseUint(args[0], 10, 32)
	if err != nil {
		return nil, err
	}
	ciphertext, err := base64.StdEncoding.DecodeString(args[3])
	if err != nil {
		return nil, err
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	document, err := attest(key)
	if err != nil {
		return nil, err
	}
	out, err := client(uint32(port), args[1], args[2]).Decrypt(context.Background(), &kms.DecryptInput{
		CiphertextBlob: ciphertext,
		Recipient:      &types.RecipientInfo{AttestationDocument: document, KeyEncryptionAlgorithm: types.KeyEncryptionMechanismRsaesOaepSha256},
	})
	if err != nil {
		return nil, err
	}
	if len(out.Plaintext) > 0 {
		return nil, errors.New("the plaintext came in the clear")
	}
	return cms.DecryptEnvelopedKey(key, out.CiphertextForRecipient)
}

// attest gets an attestation document for a key from the Nitro Secure Module.
func attest(key *rsa.PrivateKey) ([]byte, error) {
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	session, err := nsm.OpenDefaultSession()
	if err != nil {
		return nil, err
	}
	defer session.Close()
	answer, err := session.Send(&request.Attestation{PublicKey: public})
	if err != nil {
		return nil, err
	}
	if answer.Attestation == nil {
		return nil, fmt.Errorf("no attestation: %s", answer.Error)
	}
	return answer.Attestation.Document, nil
}

// client is that of the AWS SDK, whose connections go to the parent.
func client(port uint32, accessKeyID, token string) *kms.Client {
	return kms.New(kms.Options{
		Region:       "us-east-1",
		BaseEndpoint: aws.String("http://kms"),
		Credentials:  credentials.NewStaticCredentialsProvider(accessKeyID, "any", token),
		HTTPClient: &http.Client{Transport: &http.Transport{
			DialContext: func(context.Context, string, string) (net.Conn, error) { return vsock.Dial(parent, port, nil) },
		}},
	})
}
