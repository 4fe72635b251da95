package kms

import (
	"crypto/rand"
	"encoding/json"
	"slices"
	"time"
)

// operation does what a request's body asks for.
type operation func(s *Service, a *access, body []byte) (any, error)

// operations are those that are simulated, by their names in the AWS KMS API Reference,
// whose fields they have. Fields that are not looked at, such as Tags and GrantTokens,
// change nothing.
var operations = map[string]operation{
	"CreateKey":                       op((*Service).createKey),
	"DescribeKey":                     op((*Service).describeKey),
	"ListKeys":                        op((*Service).listKeys),
	"EnableKey":                       op((*Service).enableKey),
	"DisableKey":                      op((*Service).disableKey),
	"GetKeyPolicy":                    op((*Service).getKeyPolicy),
	"PutKeyPolicy":                    op((*Service).putKeyPolicy),
	"CreateAlias":                     op((*Service).createAlias),
	"DeleteAlias":                     op((*Service).deleteAlias),
	"ListAliases":                     op((*Service).listAliases),
	"Encrypt":                         op((*Service).encrypt),
	"Decrypt":                         op((*Service).decrypt),
	"GenerateDataKey":                 op((*Service).generateDataKey),
	"GenerateDataKeyWithoutPlaintext": op((*Service).generateDataKeyWithoutPlaintext),
	"GenerateRandom":                  op((*Service).generateRandom),
}

// op makes an operation of a method that takes its request decoded.
func op[Q any](f func(*Service, *access, *Q) (any, error)) operation {
	return func(s *Service, a *access, body []byte) (any, error) {
		q := new(Q)
		if err := json.Unmarshal(body, q); err != nil {
			return nil, refuse(errSerialization, "the request is not the JSON that %s takes: %v", a.operation, err)
		}
		return f(s, a, q)
	}
}

// symmetric is the only kind of key there is: its key spec and its encryption algorithm.
const symmetric = "SYMMETRIC_DEFAULT"

// is reports whether a field that may be left out is, or is what it is by default.
func is(field, standard string) bool { return field == "" || field == standard }

type createKey struct {
	Policy, Description                          string
	KeySpec, CustomerMasterKeySpec               string
	KeyUsage, Origin, CustomKeyStoreId, XksKeyId string
	BypassPolicyLockoutSafetyCheck, MultiRegion  bool
}

func (s *Service) createKey(a *access, q *createKey) (any, error) {
	switch {
	case !is(q.KeySpec, symmetric), !is(q.CustomerMasterKeySpec, symmetric):
		return nil, refuse(errUnsupported, "keys other than %s are not simulated", symmetric)
	case !is(q.KeyUsage, "ENCRYPT_DECRYPT"):
		return nil, refuse(errUnsupported, "keys for other uses than ENCRYPT_DECRYPT are not simulated")
	case !is(q.Origin, "AWS_KMS"), q.CustomKeyStoreId != "", q.XksKeyId != "", q.MultiRegion:
		return nil, refuse(errUnsupported, "keys from elsewhere and of several regions are not simulated")
	case len(q.Description) > 8192:
		return nil, refuse(errValidation, "Description has %d bytes, at most 8192 are allowed", len(q.Description))
	case !a.caller.administrator:
		return nil, refuse(errAccessDenied, "User: %s is not authorized to perform: kms:CreateKey because no identity-based policy allows the kms:CreateKey action", a.caller.arn).
			because("only the administrator, a caller without a session token, creates keys")
	}
	r := &record{ID: uuid(), Created: s.clock(), Description: q.Description, Policy: q.Policy, Material: make([]byte, materialSize)}
	if r.Policy == "" {
		r.Policy = s.defaultPolicy()
	}
	rand.Read(r.Material)
	if err := s.setPolicy(r, a, r.Policy, q.BypassPolicyLockoutSafetyCheck); err != nil {
		return nil, err
	}
	if err := s.add(r); err != nil {
		return nil, err
	}
	return s.metadata(r), nil
}

// keyMetadata is the type KeyMetadata of the API.
type keyMetadata struct {
	AWSAccountId          string
	KeyId                 string
	Arn                   string
	CreationDate          float64 // seconds since the UNIX epoch
	Enabled               bool
	Description           string
	KeyUsage              string
	KeyState              string
	Origin                string
	KeyManager            string
	CustomerMasterKeySpec string
	KeySpec               string
	EncryptionAlgorithms  []string
	MultiRegion           bool
}

func (s *Service) metadata(r *record) any {
	state := "Enabled"
	if r.Disabled {
		state = "Disabled"
	}
	return map[string]keyMetadata{"KeyMetadata": {
		AWSAccountId: s.account, KeyId: r.ID, Arn: s.arn(r), CreationDate: seconds(r.Created),
		Enabled: !r.Disabled, Description: r.Description, KeyUsage: "ENCRYPT_DECRYPT", KeyState: state,
		Origin: "AWS_KMS", KeyManager: "CUSTOMER", CustomerMasterKeySpec: symmetric, KeySpec: symmetric,
		EncryptionAlgorithms: []string{symmetric},
	}}
}

// seconds is a time as the protocol has it.
func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

type keyRequest struct{ KeyId string }

func (s *Service) describeKey(a *access, q *keyRequest) (any, error) {
	r, err := s.permitted(q.KeyId, a)
	if err != nil {
		return nil, err
	}
	return s.metadata(r), nil
}

func (s *Service) enableKey(a *access, q *keyRequest) (any, error) {
	return nil, s.change(q.KeyId, a, func(r *record) error { r.Disabled = false; return nil })
}

func (s *Service) disableKey(a *access, q *keyRequest) (any, error) {
	return nil, s.change(q.KeyId, a, func(r *record) error { r.Disabled = true; return nil })
}

type policyRequest struct {
	KeyId, PolicyName, Policy      string
	BypassPolicyLockoutSafetyCheck bool
}

func (q *policyRequest) check() error {
	if !is(q.PolicyName, "default") {
		return refuse(errNotFound, "a key has no policy but the one named default")
	}
	return nil
}

func (s *Service) getKeyPolicy(a *access, q *policyRequest) (any, error) {
	if err := q.check(); err != nil {
		return nil, err
	}
	r, err := s.permitted(q.KeyId, a)
	if err != nil {
		return nil, err
	}
	return map[string]string{"Policy": r.Policy, "PolicyName": "default"}, nil
}

func (s *Service) putKeyPolicy(a *access, q *policyRequest) (any, error) {
	if err := q.check(); err != nil {
		return nil, err
	}
	return nil, s.change(q.KeyId, a, func(r *record) error {
		return s.setPolicy(r, a, q.Policy, q.BypassPolicyLockoutSafetyCheck)
	})
}

// setPolicy gives a key a policy: one by which the caller can put another, unless he bypasses that.
func (s *Service) setPolicy(r *record, a *access, text string, bypass bool) error {
	p, err := parsePolicy(text)
	if err != nil {
		return err
	}
	if err := p.check(s.arn(r), s.administratorARN()); err != nil {
		return err
	}
	if !bypass && p.decide(&access{caller: a.caller, operation: "PutKeyPolicy", key: s.arn(r), secure: a.secure}) != allowed {
		return refuse(errMalformedPolicy, "The new key policy will not allow you to update the key policy in the future.")
	}
	r.Policy, r.policy = text, p
	return nil
}

type listRequest struct {
	KeyId, Marker string
	Limit         *int
}

// page cuts from a sorted list what a request asks for: from behind its marker, so many.
func (q *listRequest) page(sorted []string, standard, most int) (names []string, next string, err error) {
	limit := standard
	if q.Limit != nil {
		limit = *q.Limit
	}
	if limit < 1 || limit > most {
		return nil, "", refuse(errValidation, "Limit is %d, want 1 to %d", limit, most)
	}
	if q.Marker != "" {
		n, found := slices.BinarySearch(sorted, q.Marker)
		if !found {
			return nil, "", refuse(errInvalidMarker, "there is no such marker")
		}
		sorted = sorted[n+1:]
	}
	if len(sorted) > limit {
		return sorted[:limit], sorted[limit-1], nil
	}
	return sorted, "", nil
}

func (s *Service) listKeys(_ *access, q *listRequest) (any, error) {
	type entry struct{ KeyId, KeyArn string }
	s.mu.RLock()
	var all []string
	for id := range s.keys {
		all = append(all, id)
	}
	s.mu.RUnlock()
	slices.Sort(all)
	ids, next, err := q.page(all, 100, 1000)
	if err != nil {
		return nil, err
	}
	entries := make([]entry, 0, len(ids))
	for _, id := range ids {
		entries = append(entries, entry{id, s.arnOf("key/" + id)})
	}
	return struct {
		Keys       []entry
		NextMarker string `json:",omitempty"`
		Truncated  bool
	}{entries, next, next != ""}, nil
}

type aliasRequest struct{ AliasName, TargetKeyId string }

func (s *Service) createAlias(a *access, q *aliasRequest) (any, error) {
	if !aliasName.MatchString(q.AliasName) {
		return nil, refuse(errInvalidAlias, "%.300q is not alias/ and letters, digits, slashes, underscores and dashes", q.AliasName)
	}
	return nil, s.change(q.TargetKeyId, a, func(r *record) error {
		switch {
		case s.aliased(q.AliasName) != nil:
			return refuse(errAlreadyExists, "An alias with the name %s already exists", s.arnOf(q.AliasName))
		case len(r.Aliases) >= 50: // "Resource quotas", AWS KMS Developer Guide
			return refuse(errLimitExceeded, "the key has %d aliases", len(r.Aliases))
		}
		r.Aliases = append(r.Aliases, q.AliasName)
		return nil
	})
}

func (s *Service) deleteAlias(a *access, q *aliasRequest) (any, error) {
	if !aliasName.MatchString(q.AliasName) {
		return nil, refuse(errInvalidAlias, "%.300q is no alias", q.AliasName)
	}
	return nil, s.change(q.AliasName, a, func(r *record) error {
		r.Aliases = slices.DeleteFunc(r.Aliases, func(name string) bool { return name == q.AliasName })
		return nil
	})
}

func (s *Service) listAliases(_ *access, q *listRequest) (any, error) {
	type entry struct {
		AliasName, AliasArn, TargetKeyId string
		CreationDate, LastUpdatedDate    float64
	}
	var of *record
	if q.KeyId != "" {
		var err error
		if of, err = s.find(q.KeyId); err != nil {
			return nil, err
		}
	}
	s.mu.RLock()
	keys := map[string]*record{}
	var all []string
	for _, r := range s.keys {
		if of == nil || r.ID == of.ID {
			for _, name := range r.Aliases {
				keys[name] = r
				all = append(all, name)
			}
		}
	}
	s.mu.RUnlock()
	slices.Sort(all)
	names, next, err := q.page(all, 50, 100)
	if err != nil {
		return nil, err
	}
	entries := make([]entry, 0, len(names))
	for _, name := range names {
		r := keys[name]
		entries = append(entries, entry{name, s.arnOf(name), r.ID, seconds(r.Created), seconds(r.Created)})
	}
	return struct {
		Aliases    []entry
		NextMarker string `json:",omitempty"`
		Truncated  bool
	}{entries, next, next != ""}, nil
}
