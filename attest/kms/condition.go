package kms

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/nesim/nesim/attest"
)

// condition is one test of a statement: the value of a condition key against some others.
type condition struct {
	compare  func(pattern, value string) bool // nil for Null
	negated  bool                             // none of the values may be the same
	ifExists bool                             // it holds where the key has no value
	key      conditionKey
	values   []string
}

// comparisons are the operators: "String condition operators", AWS IAM User Guide.
var comparisons = map[string]condition{
	"StringEquals":              {compare: func(a, b string) bool { return a == b }},
	"StringNotEquals":           {compare: func(a, b string) bool { return a == b }, negated: true},
	"StringEqualsIgnoreCase":    {compare: strings.EqualFold},
	"StringNotEqualsIgnoreCase": {compare: strings.EqualFold, negated: true},
	"StringLike":                {compare: like},
	"StringNotLike":             {compare: like, negated: true},
}

// readConditions reads a Condition element: operators, of condition keys, of values.
func readConditions(text []byte) (list []condition, err error) {
	operators, err := object(text, "Condition")
	if err != nil {
		return nil, err
	}
	for operator, item := range operators {
		name, ifExists := strings.CutSuffix(operator, "IfExists")
		c, ok := comparisons[name]
		if !ok && operator != "Null" {
			return nil, fmt.Errorf("the condition operator %.80q is unknown or not simulated", operator)
		}
		c.ifExists = ifExists
		keys, err := object(item, operator)
		if err != nil {
			return nil, err
		}
		for name, item := range keys {
			if c.key, err = readKey(name); err != nil {
				return nil, err
			}
			if operator == "Null" && (string(item) == "true" || string(item) == "false") {
				item = strconv.AppendQuote(nil, string(item))
			}
			if c.values, err = texts(item); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			if operator == "Null" && (len(c.values) != 1 || c.values[0] != "true" && c.values[0] != "false") {
				return nil, fmt.Errorf("%s: Null is true or false", name)
			}
			list = append(list, c)
		}
	}
	return list, nil
}

// holds tells whether a condition does. Where its key has no value, a negated one does and
// others do not, unless by IfExists.
func (c *condition) holds(a *access) bool {
	value, exists := c.key.of(a)
	switch {
	case c.compare == nil:
		return exists == (c.values[0] == "false")
	case !exists:
		return c.negated || c.ifExists
	}
	return c.negated != slices.ContainsFunc(c.values, func(pattern string) bool { return c.compare(pattern, value) })
}

// conditionKey is a condition key: a PCR's, or that of a pair of the encryption context.
type conditionKey struct {
	pcr     uint64
	context string // "" for a PCR
}

// Condition keys ("AWS KMS condition keys", AWS KMS Developer Guide). Their case does not matter.
const (
	keyImage   = "kms:recipientattestation:imagesha384"
	keyPCR     = "kms:recipientattestation:pcr"
	keyContext = "kms:encryptioncontext:"
)

func readKey(name string) (conditionKey, error) {
	lower := strings.ToLower(name)
	if lower == keyImage {
		return conditionKey{pcr: 0}, nil
	}
	if n, ok := strings.CutPrefix(lower, keyPCR); ok {
		pcr, err := strconv.ParseUint(n, 10, 8)
		if err == nil && pcr < attest.MaxPCRs && strconv.FormatUint(pcr, 10) == n {
			return conditionKey{pcr: pcr}, nil
		}
	}
	if len(lower) == len(name) && strings.HasPrefix(lower, keyContext) && len(name) > len(keyContext) {
		return conditionKey{context: name[len(keyContext):]}, nil
	}
	return conditionKey{}, fmt.Errorf("the condition key %.80q is unknown or not simulated", name)
}

// of gives the key's value in a request: a PCR in lower-case hex.
func (k conditionKey) of(a *access) (value string, exists bool) {
	if k.context != "" {
		value, exists = a.context[k.context]
		return value, exists
	}
	if a.recipient == nil {
		return "", false
	}
	pcr, exists := a.recipient.document.PCRs[k.pcr]
	return hex.EncodeToString(pcr), exists
}
