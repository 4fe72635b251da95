package kms_test

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzRequest sends any body to any operation. There is always an answer in JSON, and never a failure of ours; the
// secret of a key that only an enclave may use comes out in no answer.
func FuzzRequest(f *testing.F) {
	const secret = "a secret that nobody may read"
	w := newWorld(f)
	id := w.createKey(enclavePolicy(1))
	blob := base64.StdEncoding.EncodeToString(w.encrypt(id, secret))
	document := base64.StdEncoding.EncodeToString(w.enclave(2).recipient().AttestationDocument)
	recipient := `{"AttestationDocument":"` + document + `","KeyEncryptionAlgorithm":"RSAES_OAEP_SHA_256"}`
	f.Add("Decrypt", roleToken, `{"CiphertextBlob":"`+blob+`"}`)
	f.Add("Decrypt", roleToken, `{"CiphertextBlob":"`+blob+`","KeyId":"`+id+`","EncryptionContext":{"a":"b"},"Recipient":`+recipient+`}`)
	f.Add("Encrypt", "", `{"KeyId":"`+id+`","Plaintext":"AAAA","DryRun":true}`)
	f.Add("GenerateDataKey", "", `{"KeyId":"`+id+`","KeySpec":"AES_256","Recipient":`+recipient+`}`)
	f.Add("GenerateDataKeyWithoutPlaintext", "", `{"KeyId":"`+id+`","NumberOfBytes":5}`)
	f.Add("GenerateRandom", "arn:aws:iam::123456789012:role/x", `{"NumberOfBytes":16,"Recipient":`+recipient+`}`)
	f.Add("DescribeKey", "", `{"KeyId":"arn:aws:kms:us-east-1:123456789012:alias/x"}`)
	f.Add("ListKeys", "", `{"Limit":1,"Marker":"x"}`)
	f.Add("ListAliases", "", `{"KeyId":"`+id+`"}`)
	f.Add("GetKeyPolicy", "", `{"KeyId":"`+id+`","PolicyName":"default"}`)
	f.Add("PutKeyPolicy", roleToken, `{"KeyId":"`+id+`","Policy":"{}"}`)
	f.Add("CreateAlias", roleToken, `{"AliasName":"alias/x","TargetKeyId":"`+id+`"}`)
	unwritten := []string{"ListKeys", "ListAliases", "DescribeKey", "GetKeyPolicy", "Encrypt", "Decrypt", "GenerateDataKey",
		"GenerateDataKeyWithoutPlaintext", "GenerateRandom"}
	f.Fuzz(func(t *testing.T, operation, token, body string) {
		if token == "" && !slices.Contains(unwritten, operation) {
			token = roleToken // the administrator could change the policy
		}
		if operation == "Decrypt" && !strings.HasPrefix(token, "arn:") {
			token = roleToken
		}
		got := w.post(operation, body, session(token))
		require.Contains(t, []int{200, 400, 413}, got.Code)
		require.NotContains(t, got.Body.String(), "KMSInternalException")
		require.NotContains(t, got.Body.String(), base64.StdEncoding.EncodeToString([]byte(secret)))
		if got.Body.Len() > 0 {
			require.True(t, json.Valid(got.Body.Bytes()))
		}
	})
}

// FuzzPolicy puts any policy. One that is accepted can be evaluated, is kept as it is, and lets its maker go on.
func FuzzPolicy(f *testing.F) {
	w := newWorld(f)
	id := w.createKey("")
	blob := base64.StdEncoding.EncodeToString(w.encrypt(id, "a secret"))
	f.Add(enclavePolicy(1))
	f.Add(`{"Version":"2008-10-17","Id":"x","Statement":` + administration + `}`)
	for _, policy := range badPolicies() {
		f.Add(policy)
	}
	f.Fuzz(func(t *testing.T, policy string) {
		text, err := json.Marshal(map[string]string{"KeyId": id, "Policy": policy})
		require.NoError(t, err)
		got := w.post("PutKeyPolicy", string(text))
		if got.Code != 200 {
			require.Contains(t, got.Body.String(), "MalformedPolicyDocumentException")
			return
		}
		for _, token := range []string{"", roleToken, "arn:aws:iam::123456789012:role/x"} {
			got := w.post("Decrypt", `{"CiphertextBlob":"`+blob+`"}`, session(token))
			if got.Code != 200 {
				require.Contains(t, got.Body.String(), "AccessDeniedException")
			}
		}
		got = w.post("PutKeyPolicy", string(text))
		require.Equal(t, 200, got.Code)
	})
}
