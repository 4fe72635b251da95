package kms

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/attest"
)

const testKey = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555"

// request is a Decrypt by a role.
func request(context map[string]string, pcrs map[uint64][]byte) *access {
	a := &access{
		caller:    caller{"arn:aws:iam::123456789012:role/nesim", "123456789012", false},
		operation: "Decrypt", key: testKey, context: context,
	}
	if pcrs != nil {
		a.recipient = &recipient{document: &attest.Document{PCRs: pcrs}}
	}
	return a
}

// TestConditionsFollowTheIAMUserGuide has a condition each, by which a statement allows, with the rule that it shows.
func TestConditionsFollowTheIAMUserGuide(t *testing.T) {
	none := map[string]string{}
	one := map[string]string{"tenant": "One"}
	two := map[string]string{"tenant": "One", "purpose": "Test"}
	for _, test := range []struct {
		condition string
		context   map[string]string
		holds     bool
		rule      string
	}{
		{`"StringEquals": {"kms:EncryptionContext:tenant": "One"}`, one, true, "exact matching"},
		{`"StringEquals": {"kms:EncryptionContext:tenant": "one"}`, one, false, "case-sensitive"},
		{`"StringEquals": {"kms:EncryptionContext:tenant": "O*"}`, one, false, "no wildcards"},
		{`"StringEquals": {"kms:EncryptionContext:tenant": "One"}`, none, false, "a missing key does not match"},
		{`"StringEquals": {"kms:EncryptionContext:TENANT": "One"}`, one, true, "condition keys have no case"},
		{`"StringEquals": {"KMS:encryptioncontext:tenant": "One"}`, one, true, "condition keys have no case"},
		{`"StringEquals": {"kms:EncryptionContext:tenant": ["Two", "One"]}`, one, true, "values are ORed"},
		{`"StringEquals": {"kms:EncryptionContext:tenant": ["Two", "Three"]}`, one, false, "values are ORed"},
		{`"StringEquals": {"kms:EncryptionContext:tenant": "One", "kms:EncryptionContext:purpose": "Test"}`, two, true, "keys are ANDed"},
		{`"StringEquals": {"kms:EncryptionContext:tenant": "One", "kms:EncryptionContext:purpose": "Test"}`, one, false, "keys are ANDed"},
		{`"StringEquals": {"kms:EncryptionContext:tenant": "One"}, "StringLike": {"kms:EncryptionContext:purpose": "x*"}`, two, false, "operators are ANDed"},
		{`"StringNotEquals": {"kms:EncryptionContext:tenant": "One"}`, one, false, "negated"},
		{`"StringNotEquals": {"kms:EncryptionContext:tenant": "one"}`, one, true, "case-sensitive"},
		{`"StringNotEquals": {"kms:EncryptionContext:tenant": ["Two", "One"]}`, one, false, "negated values are NORed"},
		{`"StringNotEquals": {"kms:EncryptionContext:tenant": ["Two", "Three"]}`, one, true, "negated values are NORed"},
		{`"StringNotEquals": {"kms:EncryptionContext:tenant": "One"}`, none, true, "a missing key satisfies a negated operator"},
		{`"StringEqualsIgnoreCase": {"kms:EncryptionContext:tenant": "oNE"}`, one, true, "any case"},
		{`"StringEqualsIgnoreCase": {"kms:EncryptionContext:tenant": "o*"}`, one, false, "no wildcards"},
		{`"StringNotEqualsIgnoreCase": {"kms:EncryptionContext:tenant": "oNE"}`, one, false, "any case"},
		{`"StringNotEqualsIgnoreCase": {"kms:EncryptionContext:tenant": "oNE"}`, none, true, "missing, negated"},
		{`"StringLike": {"kms:EncryptionContext:tenant": "O*"}`, one, true, "* is any text"},
		{`"StringLike": {"kms:EncryptionContext:tenant": "*O*n*e*"}`, one, true, "* is also no text"},
		{`"StringLike": {"kms:EncryptionContext:tenant": "?n?"}`, one, true, "? is one character"},
		{`"StringLike": {"kms:EncryptionContext:tenant": "?t?"}`, map[string]string{"tenant": "été"}, true, "? is one character, not one byte"},
		{`"StringLike": {"kms:EncryptionContext:tenant": "On?e"}`, one, false, "? is not none"},
		{`"StringLike": {"kms:EncryptionContext:tenant": "o*"}`, one, false, "case-sensitive"},
		{`"StringLike": {"kms:EncryptionContext:tenant": "*"}`, none, false, "a missing key does not match"},
		{`"StringNotLike": {"kms:EncryptionContext:tenant": ["T*", "O*"]}`, one, false, "negated values are NORed"},
		{`"StringNotLike": {"kms:EncryptionContext:tenant": "O*"}`, none, true, "missing, negated"},
		{`"StringEqualsIfExists": {"kms:EncryptionContext:tenant": "Two"}`, one, false, "IfExists: the key is there"},
		{`"StringEqualsIfExists": {"kms:EncryptionContext:tenant": "Two"}`, none, true, "IfExists: it is not"},
		{`"StringNotLikeIfExists": {"kms:EncryptionContext:tenant": "O*"}`, one, false, "IfExists: the key is there"},
		{`"StringNotLikeIfExists": {"kms:EncryptionContext:tenant": "O*"}`, none, true, "IfExists: it is not"},
		{`"Null": {"kms:EncryptionContext:tenant": "true"}`, none, true, "Null true: it is missing"},
		{`"Null": {"kms:EncryptionContext:tenant": "true"}`, one, false, "Null true: it is missing"},
		{`"Null": {"kms:EncryptionContext:tenant": false}`, one, true, "Null false: it exists"},
		{`"Null": {"kms:EncryptionContext:tenant": "False"}`, none, false, "Null false: it exists"},
		{`"Null": {"kms:EncryptionContext:tenant": ["true", "false"]}`, one, true, "values are ORed"},

		{`"ForAllValues:StringEquals": {"kms:EncryptionContextKeys": ["tenant", "purpose"]}`, two, true, "all of the request's values match"},
		{`"ForAllValues:StringEquals": {"kms:EncryptionContextKeys": "tenant"}`, two, false, "one does not"},
		{`"ForAllValues:StringEquals": {"kms:EncryptionContextKeys": "Tenant"}`, one, false, "case-sensitive"},
		{`"ForAllValues:StringEqualsIgnoreCase": {"kms:EncryptionContextKeys": "Tenant"}`, one, true, "any case"},
		{`"ForAllValues:StringEquals": {"kms:EncryptionContextKeys": "tenant"}`, none, true, "true for none"},
		{`"ForAllValues:StringEquals": {"kms:EncryptionContext:tenant": "Two"}`, map[string]string{"tenant": ""}, true, "an empty string is none"},
		{`"ForAllValues:StringLike": {"kms:EncryptionContextKeys": ["t*", "p*"]}`, two, true, "wildcards"},
		{`"ForAllValues:StringNotEquals": {"kms:EncryptionContextKeys": "tenant"}`, two, false, "every value must differ"},
		{`"ForAllValues:StringNotEquals": {"kms:EncryptionContextKeys": "other"}`, two, true, "every value must differ"},
		{`"ForAnyValue:StringEquals": {"kms:EncryptionContextKeys": "tenant"}`, two, true, "one of the request's values matches"},
		{`"ForAnyValue:StringEquals": {"kms:EncryptionContextKeys": "other"}`, two, false, "none does"},
		{`"ForAnyValue:StringEquals": {"kms:EncryptionContextKeys": "tenant"}`, none, false, "false for none"},
		{`"ForAnyValue:StringNotEquals": {"kms:EncryptionContextKeys": "tenant"}`, two, true, "one of them differs"},
		{`"ForAnyValue:StringNotEquals": {"kms:EncryptionContextKeys": "tenant"}`, one, false, "none differs"},
		{`"ForAnyValue:StringNotEquals": {"kms:EncryptionContextKeys": "tenant"}`, none, false, "false for none, negated or not"},
		{`"ForAnyValue:StringEqualsIfExists": {"kms:EncryptionContextKeys": "other"}`, none, true, "IfExists"},
		{`"ForAnyValue:StringEquals": {"kms:EncryptionContext:tenant": "One"}`, one, true, "a single value is a set of one"},
		{`"Null": {"kms:EncryptionContextKeys": "true"}`, none, true, "no pairs, no keys"},
		{`"Bool": {"aws:SecureTransport": "false"}`, none, true, "Bool"},
		{`"Bool": {"aws:SecureTransport": "TRUE"}`, none, false, "Bool"},
		{`"Bool": {"aws:SecureTransport": [true]}`, none, false, "Bool"},
		{`"BoolIfExists": {"aws:SecureTransport": false}`, none, true, "Bool"},
		{`"StringEquals": {"kms:RecipientAttestation:PCR1": "` + strings.Repeat("01", 48) + `"}`, none, true, "a PCR"},
		{`"StringEqualsIgnoreCase": {"kms:recipientattestation:pcr1": "` + strings.Repeat("01", 48) + `"}`, none, true, "a PCR"},
		{`"Null": {"kms:RecipientAttestation:PCR2": "true"}`, none, true, "a PCR that is not locked"},
		{`"StringNotEquals": {"kms:RecipientAttestation:PCR2": "` + strings.Repeat("01", 48) + `"}`, none, true, "missing, negated"},
	} {
		text := `{"Statement": {"Effect": "Allow", "Principal": "*", "Action": "kms:Decrypt", "Resource": "*", "Condition": {` + test.condition + `}}}`
		if strings.Contains(test.condition, "[true]") {
			_, err := readPolicy(text)
			require.ErrorContains(t, err, "true or false", "not simulated: booleans in a list")
			continue
		}
		p, err := readPolicy(text)
		require.NoError(t, err, test.condition)
		a := request(test.context, map[uint64][]byte{1: bytes.Repeat([]byte{1}, 48)})
		require.Equal(t, test.holds, p.decide(a) == allowed, "%s: %s with %v", test.rule, test.condition, test.context)
	}
}

func TestPairsThatDifferInCaseAloneAreComparedAll(t *testing.T) {
	context := map[string]string{"tenant": "one", "TENANT": "two"}
	for condition, holds := range map[string]bool{
		`"StringEquals": {"kms:EncryptionContext:Tenant": "two"}`:    true,
		`"StringNotEquals": {"kms:EncryptionContext:Tenant": "two"}`: false,
		`"StringNotEquals": {"kms:EncryptionContext:Tenant": "x"}`:   true,
	} {
		p, err := readPolicy(`{"Statement": {"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*", "Condition": {` + condition + `}}}`)
		require.NoError(t, err)
		require.Equal(t, holds, p.decide(request(context, nil)) == allowed, condition)
	}
}

func TestSecureTransportIsTLS(t *testing.T) {
	p, err := readPolicy(`{"Statement": [{"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"},
		{"Effect": "Deny", "Principal": "*", "Action": "*", "Resource": "*", "Condition": {"Bool": {"aws:SecureTransport": "false"}}}]}`)
	require.NoError(t, err)
	a := request(nil, nil)
	require.Equal(t, denied, p.decide(a))
	require.Contains(t, p.explain(a), `statement 2 denies it: Bool aws:SecureTransport wants "false", the request has "false"`)
	a.secure = true
	require.Equal(t, allowed, p.decide(a))
}

// FuzzEvaluator evaluates any policy for any request. An unconditional Deny wins over whatever there is, a verdict other
// than allowed is explained in text that a log can hold, and the explanation is the same every time.
func FuzzEvaluator(f *testing.F) {
	statement := func(condition string) string {
		return `{"Statement": [{"Effect": "Allow", "Principal": {"AWS": "123456789012"}, "Action": "kms:*", "Resource": "*"},
			{"Sid": "x", "Effect": "Deny", "Principal": "*", "Action": ["kms:D*"], "Resource": "arn:aws:kms:*", "Condition": {` + condition + `}}]}`
	}
	f.Add(statement(`"StringLike": {"kms:EncryptionContext:a": ["*?*", "b"]}`), `{"a": "b"}`, []byte{1}, true)
	f.Add(statement(`"ForAllValues:StringNotLikeIfExists": {"kms:EncryptionContextKeys": ["a*"]}, "Null": {"kms:RecipientAttestation:PCR0": true}`), `{"A": ""}`, []byte{}, false)
	f.Add(statement(`"Bool": {"aws:SecureTransport": "true"}, "StringNotEquals": {"kms:RecipientAttestation:ImageSha384": "00"}`), `{}`, []byte(nil), true)
	denyAll, err := readPolicy(`{"Statement": {"Effect": "Deny", "Principal": "*", "Action": "*", "Resource": "*"}}`)
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, text, context string, pcr []byte, secure bool) {
		p, err := readPolicy(text)
		if err != nil {
			require.Nil(t, p)
			require.NotContains(t, err.Error(), "\n")
			return
		}
		var pairs map[string]string
		if json.Unmarshal([]byte(context), &pairs) != nil {
			pairs = nil
		}
		a := request(pairs, map[uint64][]byte{0: pcr})
		if pcr == nil {
			a.recipient = nil
		}
		a.secure = secure
		before := maps.Clone(pairs)
		verdict := p.decide(a)
		require.Equal(t, before, a.context)
		if verdict != allowed {
			why := p.explain(a)
			require.NotEmpty(t, why)
			require.Equal(t, why, p.explain(a))
		}
		require.Equal(t, denied, append(slices.Clip(p), denyAll...).decide(a))
		_ = p.check(testKey, "arn:aws:iam::123456789012:user/administrator")
	})
}
