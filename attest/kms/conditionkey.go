package kms

import (
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/nesim/nesim/attest"
)

// conditionKey is a condition key of a policy.
type conditionKey struct {
	name        string // as the policy has it
	boolean     bool   // its type is Bool, else String
	multivalued bool
	ofRecipient bool     // requests have it by their attestation document
	always      bool     // every request has it
	actions     []string // those whose requests can have it; nil: all

	// values gives those in a request, none where it lacks the key.
	values func(*access) []string
	// possible reports whether a value that an operator wants can be one of the key's. nil: any can.
	possible func(operatorName, want string) bool
}

// Condition keys ("AWS KMS condition keys", AWS KMS Developer Guide, and "AWS global condition context keys", AWS IAM
// User Guide), in lower case: their case does not matter, not even that of an encryption context's key.
const (
	keyImage       = "kms:recipientattestation:imagesha384"
	keyPCR         = "kms:recipientattestation:pcr"
	keyContext     = "kms:encryptioncontext:"
	keyContextKeys = "kms:encryptioncontextkeys"
	keyTransport   = "aws:securetransport"
)

// Actions whose requests have a Recipient or an EncryptionContext: the operations' pages of the AWS KMS API Reference.
var (
	recipientActions = []string{"Decrypt", "DeriveSharedSecret", "GenerateDataKey", "GenerateDataKeyPair", "GenerateRandom"}
	contextActions   = []string{"Encrypt", "Decrypt", "GenerateDataKey", "GenerateDataKeyPair", "GenerateDataKeyPairWithoutPlaintext",
		"GenerateDataKeyWithoutPlaintext", "ReEncryptFrom", "ReEncryptTo", "CreateGrant"}
)

func readKey(name string) (conditionKey, error) {
	lower := strings.ToLower(name)
	pair, ofContext := strings.CutPrefix(lower, keyContext)
	number, ofPCR := strings.CutPrefix(lower, keyPCR)
	var k conditionKey
	known := true
	switch {
	case lower == keyImage:
		k = pcrKey(0)
	case ofPCR:
		pcr, err := strconv.ParseUint(number, 10, 8)
		known = err == nil && pcr < attest.MaxPCRs && strconv.FormatUint(pcr, 10) == number
		k = pcrKey(pcr)
	case ofContext && pair != "":
		k = contextKey(pair)
	case lower == keyContextKeys:
		k = conditionKey{multivalued: true, actions: contextActions, values: func(a *access) []string {
			return slices.Sorted(maps.Keys(a.context))
		}}
	case lower == keyTransport:
		k = conditionKey{boolean: true, always: true, values: func(a *access) []string {
			return []string{strconv.FormatBool(a.secure)}
		}}
	default:
		known = false
	}
	if !known {
		return k, fmt.Errorf("the condition key %.80q is unknown or not simulated", name)
	}
	k.name = name
	return k, nil
}

// pcrKey is the key of a PCR, whose values are in lower-case hex.
func pcrKey(pcr uint64) conditionKey {
	return conditionKey{ofRecipient: true, actions: recipientActions, possible: possiblePCR, values: func(a *access) []string {
		if a.recipient == nil {
			return nil
		}
		value, exists := a.recipient.document.PCRs[pcr]
		if !exists {
			return nil
		}
		return []string{hex.EncodeToString(value)}
	}}
}

// contextKey is that of the pairs of an encryption context whose key is one, in any case.
func contextKey(pair string) conditionKey {
	return conditionKey{actions: contextActions, values: func(a *access) (values []string) {
		for _, key := range sortedKeys(a.context) {
			if strings.ToLower(key) == pair {
				values = append(values, a.context[key])
			}
		}
		return values
	}}
}

// pcrSizes are those of PCRs in characters: 32, 48 or 64 bytes in hex (attest.ErrPCRLength).
var pcrSizes = []int{64, 96, 128}

var (
	hexText    = regexp.MustCompile(`^[0-9a-f]*$`)
	hexPattern = regexp.MustCompile(`^[0-9a-f*?]*$`)
)

// possiblePCR reports whether a PCR can have a value, or match a pattern.
func possiblePCR(operatorName, want string) bool {
	switch {
	case strings.Contains(operatorName, "Like"):
		fixed := len(want) - strings.Count(want, "*")
		return hexPattern.MatchString(want) &&
			(slices.Contains(pcrSizes, fixed) || fixed < len(want) && fixed <= slices.Max(pcrSizes))
	case strings.Contains(operatorName, "IgnoreCase"):
		want = strings.ToLower(want)
	}
	return hexText.MatchString(want) && slices.Contains(pcrSizes, len(want))
}
