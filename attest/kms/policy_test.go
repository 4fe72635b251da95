package kms_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/attest/nsm"
)

// administration is a statement that keeps the administrator from locking himself out.
const administration = `{"Effect": "Allow", "Principal": {"AWS": "123456789012"}, "Action": "kms:*", "Resource": "*"}`

// pcr is the value of a PCR whose bytes are all the same, as policies have it.
func pcr(b byte) string { return strings.Repeat(fmt.Sprintf("%02x", b), 48) }

func TestAPolicyIsPutAndGot(t *testing.T) {
	w := newWorld(t)
	c := w.client("")
	id := w.createKey("")
	got, err := c.GetKeyPolicy(t.Context(), &sdk.GetKeyPolicyInput{KeyId: &id})
	require.NoError(t, err)
	require.Contains(t, *got.Policy, "arn:aws:iam::123456789012:root")
	require.Equal(t, "default", *got.PolicyName)

	policy := enclavePolicy(1)
	_, err = c.PutKeyPolicy(t.Context(), &sdk.PutKeyPolicyInput{KeyId: &id, PolicyName: aws.String("default"), Policy: &policy})
	require.NoError(t, err)
	got, err = c.GetKeyPolicy(t.Context(), &sdk.GetKeyPolicyInput{KeyId: &id, PolicyName: aws.String("default")})
	require.NoError(t, err)
	require.Equal(t, policy, *got.Policy)
	_, err = c.GetKeyPolicy(t.Context(), &sdk.GetKeyPolicyInput{KeyId: &id, PolicyName: aws.String("other")})
	w.refuses(err, "NotFoundException")
	_, err = w.client(roleToken).PutKeyPolicy(t.Context(), &sdk.PutKeyPolicyInput{KeyId: &id, Policy: &policy})
	w.refuses(err, "AccessDeniedException")
}

func TestAPolicyMayNotLockItsMakerOut(t *testing.T) {
	w := newWorld(t)
	c := w.client("")
	id := w.createKey("")
	policy := `{"Statement": {"Effect": "Allow", "Principal": {"AWS": "` + nsm.DefaultRoleARN + `"}, "Action": "kms:*", "Resource": "*"}}`
	put := &sdk.PutKeyPolicyInput{KeyId: &id, Policy: &policy}
	_, err := c.PutKeyPolicy(t.Context(), put)
	w.refuses(err, "MalformedPolicyDocumentException", "in the future")
	put.BypassPolicyLockoutSafetyCheck = true
	_, err = c.PutKeyPolicy(t.Context(), put)
	require.NoError(t, err)
	_, err = c.PutKeyPolicy(t.Context(), put)
	w.refuses(err, "AccessDeniedException")
	_, err = w.client(roleToken).PutKeyPolicy(t.Context(), put)
	require.NoError(t, err)
}

func TestPoliciesDecide(t *testing.T) {
	w := newWorld(t)
	pcr8 := digest(8)
	e := w.enclave(0xab, func(c *nsm.Config) { c.Measurements.PCR8 = &pcr8 })
	id := w.createKey("")
	arn := "arn:aws:kms:us-east-1:123456789012:key/" + id
	context := map[string]string{"tenant": "one"}
	encrypted, err := w.client("").Encrypt(t.Context(), &sdk.EncryptInput{KeyId: &id, Plaintext: []byte("x"), EncryptionContext: context})
	require.NoError(t, err)
	to := e.recipient()
	allow := func(condition string) string {
		return `{"Effect": "Allow", "Principal": "*", "Action": "kms:Decrypt", "Resource": "*", "Condition": {` + condition + `}}`
	}
	image := `"kms:RecipientAttestation:ImageSha384": `
	role := `"Principal": {"AWS": "` + nsm.DefaultRoleARN + `"}`
	for _, test := range []struct {
		statements    string
		with, without bool // what the role may: decrypt with a document, without one
	}{
		{``, false, false},
		{allow(``), true, true},
		{allow(`"StringEquals": {` + image + `"` + pcr(0xab) + `"}`), true, false},
		{allow(`"StringEquals": {"KMS:recipientattestation:IMAGESHA384": "` + pcr(0xab) + `"}`), true, false},
		{allow(`"StringEquals": {` + image + `"` + strings.ToUpper(pcr(0xab)) + `"}`), false, false},
		{allow(`"StringEqualsIgnoreCase": {` + image + `"` + strings.ToUpper(pcr(0xab)) + `"}`), true, false},
		{allow(`"StringEquals": {` + image + `["` + pcr(1) + `", "` + pcr(0xab) + `"]}`), true, false},
		{allow(`"StringEquals": {` + image + `["` + pcr(1) + `", "` + pcr(2) + `"]}`), false, false},
		{allow(`"StringEquals": {"kms:RecipientAttestation:PCR0": "` + pcr(0xab) + `", "kms:RecipientAttestation:PCR8": "` + pcr(8) + `"}`), true, false},
		{allow(`"StringEquals": {"kms:RecipientAttestation:PCR0": "` + pcr(0xab) + `", "kms:RecipientAttestation:PCR8": "` + pcr(9) + `"}`), false, false},
		{allow(`"StringEquals": {"kms:RecipientAttestation:PCR0": "` + pcr(0xab) + `"}, "StringLike": {"kms:RecipientAttestation:PCR8": "*9*"}`), false, false},
		{allow(`"StringEquals": {"kms:RecipientAttestation:PCR1": "` + pcr(0) + `"}`), true, false},
		{allow(`"StringEquals": {"kms:RecipientAttestation:PCR16": "` + pcr(0) + `"}`), false, false}, // not locked
		{allow(`"StringEqualsIfExists": {"kms:RecipientAttestation:PCR16": "` + pcr(1) + `"}`), true, true},
		{allow(`"StringEqualsIfExists": {` + image + `"` + pcr(0xab) + `"}`), true, true},
		{allow(`"StringEqualsIfExists": {` + image + `"` + pcr(1) + `"}`), false, true},
		{allow(`"StringLike": {` + image + `"abab*"}`), true, false},
		{allow(`"StringLike": {` + image + `"` + strings.Repeat("?", 96) + `"}`), true, false},
		{allow(`"StringLike": {` + image + `"ab"}`), false, false},
		{allow(`"StringEquals": {` + image + `"abab*"}`), false, false},
		{allow(`"StringNotEquals": {` + image + `"` + pcr(0xab) + `"}`), false, true},
		{allow(`"StringNotEquals": {` + image + `["` + pcr(1) + `", "` + pcr(0xab) + `"]}`), false, true},
		{allow(`"StringNotEquals": {` + image + `"` + pcr(1) + `"}`), true, true},
		{allow(`"StringNotEqualsIgnoreCase": {` + image + `"` + strings.ToUpper(pcr(0xab)) + `"}`), false, true},
		{allow(`"StringNotLike": {` + image + `"ab*"}`), false, true},
		{allow(`"Null": {` + image + `"false"}`), true, false},
		{allow(`"Null": {` + image + `true}`), false, true},
		{allow(`"StringEquals": {"kms:EncryptionContext:tenant": "one"}`), true, true},
		{allow(`"StringEquals": {"kms:EncryptionContext:tenant": "two"}`), false, false},

		{allow(``) + `, {"Effect": "Deny", "Principal": "*", "Action": "kms:Decrypt", "Resource": "*", "Condition": {"Null": {` + image + `"true"}}}`, true, false},
		{allow(``) + `, {"Effect": "Deny", "Principal": {"AWS": "arn:aws:iam::123456789012:root"}, "Action": "kms:Decrypt", "Resource": "*"}`, false, false},
		{allow(``) + `, {"Effect": "Deny", "Principal": {"AWS": "arn:aws:iam::123456789012:role/other"}, "Action": "kms:Decrypt", "Resource": "*"}`, true, true},
		{`{"Effect": "Allow", ` + role + `, "Action": "kms:decrypt", "Resource": "` + arn + `"}`, true, true},
		{`{"Effect": "Allow", ` + role + `, "Action": ["kms:Encrypt", "kms:De*"], "Resource": "arn:aws:kms:*"}`, true, true},
		{`{"Effect": "Allow", ` + role + `, "Action": "*", "Resource": "*"}`, true, true},
		{`{"Effect": "Allow", ` + role + `, "Action": "kms:Encrypt", "Resource": "*"}`, false, false},
		{`{"Effect": "Allow", ` + role + `, "Action": "kms:Decrypt", "Resource": "` + arn + `0"}`, false, false},
		{`{"Effect": "Allow", "Principal": {"AWS": ["arn:aws:iam::123456789012:role/other", "arn:aws:iam::123456789012:root"]}, "Action": "kms:Decrypt", "Resource": "*"}`, false, false},
		{`{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "kms:Decrypt", "Resource": "*"}`, false, false},
		{`{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "kms:Decrypt", "Resource": "*"}`, true, true},
	} {
		policy := `{"Version": "2012-10-17", "Id": "test", "Statement": [` + strings.TrimSuffix(administration+", "+test.statements, ", ") + `]}`
		_, err := w.client("").PutKeyPolicy(t.Context(), &sdk.PutKeyPolicyInput{KeyId: &id, Policy: &policy})
		require.NoError(t, err, test.statements)
		in := &sdk.DecryptInput{CiphertextBlob: encrypted.CiphertextBlob, EncryptionContext: context}
		_, without := w.client(roleToken).Decrypt(t.Context(), in)
		in.Recipient = to
		_, with := w.client(roleToken).Decrypt(t.Context(), in)
		require.Equal(t, test.with, with == nil, "%s: %v", test.statements, with)
		require.Equal(t, test.without, without == nil, "%s: %v", test.statements, without)
		for _, err := range []error{with, without} {
			if err != nil {
				w.refuses(err, "AccessDeniedException")
			}
		}
	}
}

// badPolicies are refused when they are put.
func badPolicies() []string {
	statement := func(change ...string) string {
		return `{"Statement": [` + administration + `, ` + strings.NewReplacer(change...).Replace(
			`{"Sid": "x", "Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*", "Condition": {"StringEquals": {"kms:RecipientAttestation:PCR0": "00"}}}`) + `]}`
	}
	return []string{
		`{`, `[]`, `null`, `"x"`, `{}`, `{"Statement": []}`, `{"Statement": null}`, `{"Statement": [1]}`,
		statement() + "x",
		`{"Version": "2020-01-01", "Statement": ` + administration + `}`,
		`{"Version": "2012-10-17", "Statements": ` + administration + `}`,
		`{"Statement": ` + administration + `, "Statement": ` + administration + `}`,
		statement(`"Allow"`, `"allow"`), statement(`"Allow"`, `null`), statement(`"Effect"`, `"effect"`),
		statement(`"Effect": "Allow"`, `"Effect": "Deny", "Effect": "Allow"`),
		statement(`"Principal"`, `"NotPrincipal"`), statement(`"Action"`, `"NotAction"`), statement(`"Resource"`, `"NotResource"`),
		statement(`"Principal": "*"`, `"Principal": "x"`), statement(`"Principal": "*"`, `"Principal": {}`),
		statement(`"Principal": "*"`, `"Principal": {"AWS": []}`), statement(`"Principal": "*"`, `"Principal": {"AWS": "arn:aws:iam::*:root"}`),
		statement(`"Principal": "*"`, `"Principal": {"Other": "*"}`),
		statement(`"kms:*"`, `"s3:*"`), statement(`"kms:*"`, `[]`), statement(`"kms:*"`, `[""]`), statement(`"kms:*"`, `5`), statement(`"kms:*"`, `null`), statement(`"kms:*"`, `[null]`),
		statement(`"Resource": "*"`, `"Resource": {}`), statement(`"Resource": "*", `, ``),
		statement(`{"StringEquals"`, `{"Bool"`), statement(`{"StringEquals"`, `{"ForAnyValue:Null"`), statement(`{"StringEquals"`, `{"ForSomeValues:StringEquals"`), statement(`{"StringEquals"`, `{"ForAnyValue:"`),
		statement(`{"StringEquals"`, `{"StringEqualsIfExistsIfExists"`), statement(`{"StringEquals"`, `{"NumericEquals"`), statement(`{"StringEquals"`, `{"ArnLike"`), statement(`{"StringEquals"`, `{"IpAddress"`),
		statement(`{"StringEquals"`, `{"DateLessThan"`), statement(`{"StringEquals"`, `{"BinaryEquals"`), statement(`{"StringEquals"`, `{"BoolIfExists"`),
		statement(`kms:RecipientAttestation:PCR0`, `aws:SecureTransport`), statement(`kms:RecipientAttestation:PCR0`, `kms:EncryptionContextKeys`),
		statement(`{"StringEquals": {"kms:RecipientAttestation:PCR0": "00"}}`, `{"Bool": {"aws:SecureTransport": "yes"}}`),
		statement(`"Principal": "*"`, `"Principal": {"AWS": "administrator"}`), statement(`"Principal": "*"`, `"Principal": {"AWS": "arn:aws:iam::123456789012:role"}`),
		statement(`"Principal": "*"`, `"Principal": {"AWS": "arn:aws:iam::123456789012"}`), statement(`"Principal": "*"`, `"Principal": {"AWS": "12345678901"}`),
		statement(`"Principal": "*"`, `"Principal": {"AWS": "AROAEXAMPLEEXAMPLE"}`), statement(`"Sid": "x"`, `"Sid": 5`), statement(`{"StringEquals"`, `{"IfExists"`),
		statement(`{"StringEquals"`, `{"stringequals"`), statement(`{"StringEquals"`, `{"Null"`), statement(`{"StringEquals"`, `{"NullIfExists"`), statement(`{"StringEquals"`, `{""`),
		statement(`PCR0`, `PCR32`), statement(`PCR0`, `PCR`), statement(`PCR0`, `PCR00`), statement(`PCR0`, `PCR-1`), statement(`PCR0`, `NitroTPMPCR0`),
		statement(`kms:RecipientAttestation:PCR0`, `kms:RecipientAttestation`), statement(`kms:RecipientAttestation:PCR0`, `kms:EncryptionContext:`),
		statement(`kms:RecipientAttestation:PCR0`, `aws:PrincipalArn`), statement(`"00"`, `5`), statement(`"00"`, `[]`), statement(`"00"`, `"${aws:username}"`),
		statement(`"00"`, `"`+strings.Repeat("0", 3000)+`"`),
		statement(`"Condition": {`, `"Condition": [], "x": {`), statement(`{"StringEquals": {"kms:RecipientAttestation:PCR0": "00"}}`, `null`), statement(`{"kms:RecipientAttestation:PCR0": "00"}`, `"x"`),
		`{"Id": "` + strings.Repeat("x", 33000) + `", "Statement": ` + administration + `}`,
		strings.Repeat(`{"Statement":`, 20),
		strings.Repeat(`[`, 10000),
	}
}

func TestPoliciesThatAreNotUnderstoodAreRefused(t *testing.T) {
	w := newWorld(t)
	id := w.createKey("")
	for _, policy := range badPolicies() {
		_, err := w.client("").PutKeyPolicy(t.Context(), &sdk.PutKeyPolicyInput{KeyId: &id, Policy: &policy})
		w.refuses(err, "MalformedPolicyDocumentException")
		require.NotContains(t, err.Error(), "\n")
		_, err = w.client("").CreateKey(t.Context(), &sdk.CreateKeyInput{Policy: &policy})
		w.refuses(err, "MalformedPolicyDocumentException")
	}
	_, err := w.client("").PutKeyPolicy(t.Context(), &sdk.PutKeyPolicyInput{KeyId: &id, Policy: aws.String("")})
	w.refuses(err, "MalformedPolicyDocumentException")
}

// idleDenies are statements that would never deny anything, and what is said about them.
var idleDenies = []struct{ change, to, says string }{
	{`"Principal": "*"`, `"Principal": {"AWS": "arn:aws:sts::123456789012:assumed-role/nesim/session"}`, "no caller is the principal"},
	{`"Principal": "*"`, `"Principal": {"AWS": "arn:aws:sts::123456789012:federated-user/alice"}`, "no caller is the principal"},
	{`"Principal": "*"`, `"Principal": {"AWS": "arn:aws:iam::123456789012:user/alice"}`, "no caller is the principal"},
	{`"Principal": "*"`, `"Principal": {"AWS": "arn:aws:iam::210987654321:user/administrator"}`, "no caller is the principal"},
	{`"Principal": "*"`, `"Principal": {"AWS": ["*", "arn:aws:iam::123456789012:user/alice"]}`, "no caller is the principal"},
	{`"Principal": "*"`, `"Principal": {"Service": "ec2.amazonaws.com"}`, "no caller is the principal"},
	{`"Principal": "*"`, `"Principal": {"AWS": "*", "Federated": "cognito-identity.amazonaws.com"}`, "no caller is the principal"},
	{`"Principal": "*"`, `"Principal": {"AWS": "nesim"}`, "is invalid"},
	{`"kms:Decrypt"`, `"kms:Decyrpt"`, "no action"},
	{`"kms:Decrypt"`, `["kms:Decrypt", "kms:Enrcypt*"]`, "no action"},
	{`"Resource": "*"`, `"Resource": "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555"`, "is not this key"},
	{`"Resource": "*"`, `"Resource": "arn:aws:kms:us-east-1:123456789012:alias/*"`, "is not this key"},
	{`{}`, `{"StringEquals": {"kms:RecipientAttestation:PCR0": "` + strings.ToUpper(pcr(0xab)) + `"}}`, "is never"},
	{`{}`, `{"StringEquals": {"kms:RecipientAttestation:PCR0": "` + pcr(0xab) + `00"}}`, "is never"},
	{`{}`, `{"StringEqualsIgnoreCase": {"kms:RecipientAttestation:ImageSha384": "sha384"}}`, "is never"},
	{`{}`, `{"StringLike": {"kms:RecipientAttestation:PCR0": "AB*"}}`, "is never"},
	{`{}`, `{"StringLike": {"kms:RecipientAttestation:PCR0": ["ab*", "??"]}}`, "is never"},
	{`{}`, `{"ForAnyValue:StringEquals": {"kms:RecipientAttestation:PCR0": "x"}}`, "is never"},
	{`{}`, `{"Null": {"aws:SecureTransport": "true"}}`, "every request has"},
	{`"kms:Decrypt", "Resource": "*", "Condition": {}`, `"kms:Encrypt", "Resource": "*", "Condition": {"StringEquals": {"kms:RecipientAttestation:PCR0": "` + pcr(1) + `"}}`, "no request for its actions"},
	{`"kms:Decrypt", "Resource": "*", "Condition": {}`, `"kms:PutKeyPolicy", "Resource": "*", "Condition": {"Null": {"kms:EncryptionContext:tenant": "false"}}`, "no request for its actions"},
	{`{}`, `{"StringEquals": {"kms:RecipientAttestation:PCR99": "` + pcr(1) + `"}}`, "unknown"},
	{`{}`, `{"StringEquals": {"aws:PrincipalTag/team": "x"}}`, "unknown"},
	{`{}`, `{"StringEquals": {"kms:ViaService": "x"}}`, "unknown"},
}

const denial = `{"Sid": "No", "Effect": "Deny", "Principal": "*", "Action": "kms:Decrypt", "Resource": "*", "Condition": {}}`

func TestADenyThatCanNeverMatchIsRefused(t *testing.T) {
	w := newWorld(t)
	id := w.createKey("")
	put := func(statement string) error {
		policy := `{"Statement": [` + administration + `, ` + statement + `]}`
		_, err := w.client("").PutKeyPolicy(t.Context(), &sdk.PutKeyPolicyInput{KeyId: &id, Policy: &policy})
		return err
	}
	for _, test := range idleDenies {
		statement := strings.Replace(denial, test.change, test.to, 1)
		require.NotEqual(t, denial, statement)
		w.refuses(put(statement), "MalformedPolicyDocumentException", test.says)
	}
	for _, good := range []struct{ change, to string }{
		{`"Principal": "*"`, `"Principal": {"AWS": ["arn:aws:iam::123456789012:user/administrator", "arn:aws:iam::210987654321:root", "210987654321"]}`},
		{`"Principal": "*"`, `"Principal": {"AWS": ["arn:aws:iam::210987654321:role/path/other", "*"]}`},
		{`"kms:Decrypt"`, `["kms:decrypt", "kms:Schedule*", "kms:?ncrypt"]`},
		{`"Resource": "*"`, `"Resource": "arn:aws:kms:us-east-1:123456789012:key/` + id + `"`},
		{`"Resource": "*"`, `"Resource": "arn:aws:kms:*:*:key/*"`},
		{`{}`, `{"StringEqualsIgnoreCase": {"kms:RecipientAttestation:PCR0": "` + strings.ToUpper(pcr(0xab)) + `"}}`},
		{`{}`, `{"StringNotEquals": {"kms:RecipientAttestation:PCR0": "` + strings.ToUpper(pcr(0xab)) + `"}}`},
		{`{}`, `{"StringLike": {"kms:RecipientAttestation:PCR0": "ab*??"}}`},
		{`{}`, `{"Null": {"aws:SecureTransport": ["true", "false"]}}`},
		{`"kms:Decrypt", "Resource": "*", "Condition": {}`, `"kms:Encrypt", "Resource": "*", "Condition": {"Null": {"kms:RecipientAttestation:PCR0": "true"}}`},
	} {
		statement := strings.Replace(denial, good.change, good.to, 1)
		require.NotEqual(t, denial, statement)
		require.NoError(t, put(statement), statement)
		require.NoError(t, put(administration))
	}
}

func TestADenyOfAnAccountDeniesItsRoles(t *testing.T) {
	w := newWorld(t)
	id := w.createKey(`{"Statement": [` + administration + `, {"Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*"},
		{"Effect": "Deny", "Principal": {"AWS": "210987654321"}, "Action": "kms:DescribeKey", "Resource": "*"}]}`)
	describe := func(token string) error {
		_, err := w.client(token).DescribeKey(t.Context(), &sdk.DescribeKeyInput{KeyId: &id})
		return err
	}
	require.NoError(t, describe(""))
	require.NoError(t, describe(roleToken))
	w.refuses(describe("arn:aws:iam::210987654321:role/x"), "AccessDeniedException", "explicit deny")
}

func TestTheLogSaysWhyARequestIsDenied(t *testing.T) {
	w := newWorld(t)
	id := w.createKey(enclavePolicy(0xab))
	blob := w.encrypt(id, "a secret")
	require.Empty(t, w.log.take())
	decrypt := func(in *sdk.DecryptInput, says ...string) {
		t.Helper()
		in.CiphertextBlob = blob
		_, err := w.client(roleToken).Decrypt(t.Context(), in)
		require.Error(t, err)
		require.NotContains(t, err.Error(), "wants", "that is for the log")
		line := w.log.take()
		require.Equal(t, 1, strings.Count(line, "\n"), line)
		for _, text := range append(says, "denied", "operation=Decrypt", nsm.DefaultRoleARN) {
			require.Contains(t, line, text)
		}
		require.NotContains(t, line, "a secret")
	}
	decrypt(&sdk.DecryptInput{}, "statement 2 (Enclaves)", "StringEqualsIgnoreCase kms:RecipientAttestation:ImageSha384 wants", strings.ToUpper(pcr(0xab)), "the request has no attestation document")
	decrypt(&sdk.DecryptInput{Recipient: w.enclave(0xcd).recipient()}, strings.ToUpper(pcr(0xab)), `the request has \"`+pcr(0xcd))
	decrypt(&sdk.DecryptInput{Recipient: w.enclave(0xab, func(c *nsm.Config) { c.Debug = true }).recipient()}, pcr(0))
	decrypt(&sdk.DecryptInput{Recipient: newWorld(t).enclave(0xab).recipient()}, "not a root that is trusted here")

	policy := `{"Statement": [` + administration + `, {"Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*"},
		{"Sid": "Tenants", "Effect": "Deny", "Principal": "*", "Action": "kms:Decrypt", "Resource": "*", "Condition": {"StringNotEquals": {"kms:EncryptionContext:tenant": "one"}}}]}`
	_, err := w.client("").PutKeyPolicy(t.Context(), &sdk.PutKeyPolicyInput{KeyId: &id, Policy: &policy})
	require.NoError(t, err)
	decrypt(&sdk.DecryptInput{EncryptionContext: map[string]string{"tenant": "two\nlines\x1b[31m"}}, "statement 3 (Tenants) denies it", "StringNotEquals kms:EncryptionContext:tenant wants", "two")
	decrypt(&sdk.DecryptInput{}, "statement 3 (Tenants) denies it", "the request has nothing")
}
