package kms

import (
	"fmt"
	"slices"
)

// A statement that can never match is harmless where it allows: the caller is refused. Where it denies, the caller gets
// what its author meant to keep from him. So a policy that is put has no Deny that can never match; policies that are on
// disk already were put.

// check refuses a policy with a principal that IAM would refuse, or with a Deny part of which can never match. key and
// administrator are ARNs.
func (p policy) check(key, administrator string) error {
	for i := range p {
		s := &p[i]
		err := s.checkPrincipals()
		if err == nil && s.deny {
			err = s.checkDeny(key, administrator)
		}
		if err != nil {
			return refuse(errMalformedPolicy, "%s: %v", s.name(i), err)
		}
	}
	return nil
}

func (s *statement) checkPrincipals() error {
	for _, p := range s.principals {
		if !p.valid() {
			return fmt.Errorf("the principal %.200q is invalid: want the ARN of a user, a role or a session, an account, or *", p.name)
		}
	}
	return nil
}

func (s *statement) checkDeny(key, administrator string) error {
	for _, p := range s.principals {
		if !p.canCall(administrator) {
			return fmt.Errorf("it can never deny: no caller is the principal %.200q: callers are %s, and roles by their ARNs", p.name, administrator)
		}
	}
	for _, pattern := range s.actions {
		if !slices.ContainsFunc(actions, func(action string) bool { return likeAction(pattern, action) }) {
			return fmt.Errorf("it can never deny: AWS KMS has no action %.80q", pattern)
		}
	}
	for _, pattern := range s.resources {
		if !like(pattern, key) {
			return fmt.Errorf("it can never deny: the resource %.200q is not this key, %s", pattern, key)
		}
	}
	for i := range s.conditions {
		if err := s.conditions[i].checkDeny(s.actions); err != nil {
			return fmt.Errorf("it can never deny: %w", err)
		}
	}
	return nil
}

// checkDeny refuses a condition that holds for no request for one of the actions.
func (c *condition) checkDeny(patterns []string) error {
	carried := c.key.actions == nil || slices.ContainsFunc(c.key.actions, func(action string) bool {
		return slices.ContainsFunc(patterns, func(pattern string) bool { return likeAction(pattern, action) })
	})
	switch {
	case !carried && !c.holds(nil):
		return fmt.Errorf("no request for its actions has %.100s", c.key.name)
	case c.compare == nil && c.key.always && !slices.Contains(c.want, "false"):
		return fmt.Errorf("every request has %.100s", c.key.name)
	case c.compare == nil || c.negated || c.key.possible == nil:
		return nil
	}
	for _, want := range c.want {
		if !c.key.possible(c.name, want) {
			return fmt.Errorf("%s: %.100s is never %.200q", c.name, c.key.name, want)
		}
	}
	return nil
}

// actions are AWS KMS's: "Actions defined by AWS Key Management Service", Service Authorization Reference.
var actions = []string{
	"CancelKeyDeletion", "ConnectCustomKeyStore", "CreateAlias", "CreateCustomKeyStore", "CreateGrant", "CreateKey", "Decrypt",
	"DeleteAlias", "DeleteCustomKeyStore", "DeleteImportedKeyMaterial", "DeriveSharedSecret", "DescribeCustomKeyStores",
	"DescribeKey", "DisableKey", "DisableKeyRotation", "DisconnectCustomKeyStore", "EnableKey", "EnableKeyRotation", "Encrypt",
	"GenerateDataKey", "GenerateDataKeyPair", "GenerateDataKeyPairWithoutPlaintext", "GenerateDataKeyWithoutPlaintext",
	"GenerateMac", "GenerateRandom", "GetKeyPolicy", "GetKeyRotationStatus", "GetParametersForImport", "GetPublicKey",
	"ImportKeyMaterial", "ListAliases", "ListGrants", "ListKeyPolicies", "ListKeyRotations", "ListKeys", "ListResourceTags",
	"ListRetirableGrants", "PutKeyPolicy", "ReEncryptFrom", "ReEncryptTo", "ReplicateKey", "RetireGrant", "RevokeGrant",
	"RotateKeyOnDemand", "ScheduleKeyDeletion", "Sign", "SynchronizeMultiRegionKey", "TagResource", "UntagResource",
	"UpdateAlias", "UpdateCustomKeyStore", "UpdateKeyDescription", "UpdatePrimaryRegion", "Verify", "VerifyMac",
}
