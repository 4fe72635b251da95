package main

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"

	"github.com/hf/nsm"
	"github.com/hf/nsm/request"
)

// attestation asks the Nitro Secure Module for an attestation document with a nonce in hex, and returns it in base64.
func attestation(nonce string) string {
	value, err := hex.DecodeString(nonce)
	if err != nil {
		return fmt.Sprint("error: attest wants a nonce in hex: ", err)
	}
	session, err := nsm.OpenDefaultSession()
	if err != nil {
		return fmt.Sprint("error: open the NSM: ", err)
	}
	defer session.Close()
	answer, err := session.Send(&request.Attestation{Nonce: value})
	if err != nil {
		return fmt.Sprint("error: ask the NSM: ", err)
	}
	if answer.Error != "" {
		return fmt.Sprint("error: the NSM answers ", answer.Error)
	}
	return base64.StdEncoding.EncodeToString(answer.Attestation.Document)
}
