package steps

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nesim/nesim/attest"
	"github.com/nesim/nesim/scenarios"
	"github.com/nesim/nesim/scenarios/trace"
)

var attestStep = kind[Attest]("attest", "have the hello workload attested and verify the document")

// Attest has the hello workload attested, and verifies the document under the stage's root.
type Attest struct {
	Enclave string `yaml:"enclave" required:"true"`
	Nonce   string `yaml:"nonce" doc:"nonce in hexadecimal (default 00)"`
	Expect  string `yaml:"expect" doc:"the outcome (default verified)" enum:"verified,refused,error"`
}

// Check implements [scenarios.Action].
func (s *Attest) Check(c *scenarios.Checker) {
	c.Uses(scenarios.Enclave, s.Enclave)
	if _, err := hex.DecodeString(s.Nonce); err != nil {
		c.Fail("nonce: %v", err)
	}
}

// Do implements [Action].
func (s *Attest) Do(ctx context.Context, w *World, b Branch) error {
	nonce := cmp.Or(s.Nonce, "00")
	answer, err := w.ask(ctx, b, s.Enclave, "attest "+nonce)
	if err != nil {
		return err
	}
	got, why := w.verify(answer, nonce)
	w.Note(b, s.Enclave, trace.NSM, "attestation: "+got)
	if want := cmp.Or(s.Expect, "verified"); got != want {
		if why != nil {
			return mismatch("%s, not %s: %v", got, want, why)
		}
		return mismatch("%s, not %s", got, want)
	}
	return nil
}

// verify checks the document in hello's answer.
func (w *World) verify(answer, nonce string) (outcome string, why error) {
	if strings.HasPrefix(answer, "error:") {
		return "error", errors.New(answer)
	}
	document, err := base64.StdEncoding.DecodeString(answer)
	if err != nil {
		return "error", fmt.Errorf("the answer is %.80q", answer)
	}
	root := w.Stage.Root()
	if root == nil {
		return "error", errors.New("enclaves of this instance have no NSM: give it nsm: true")
	}
	wanted, err := hex.DecodeString(nonce)
	if err != nil {
		return "error", err
	}
	expect := attest.Expect{Roots: []attest.Fingerprint{attest.FingerprintOf(root.Root())}, At: time.Now(), Nonce: wanted}
	if _, err := attest.Verify(document, expect); err != nil {
		return "refused", err
	}
	return "verified", nil
}
