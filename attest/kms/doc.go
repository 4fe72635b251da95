// Package kms answers the part of the AWS KMS API (JSON 1.1, TrentService) that enclaves
// and their developers use: symmetric keys, key policies, and the Recipient parameter, by
// which a plaintext goes to nobody but the enclave whose attestation document asks for it.
//
// # Callers
//
// Without Config.AccessKeys any credentials will do. With them a request must be signed with one of them by AWS Signature
// Version 4, in its Authorization header. Either way the session token (X-Amz-Security-Token), which temporary credentials
// have, decides who calls:
//
//   - without one, the caller is the account's administrator,
//   - with one, the parent's role (Config.RoleARN); a token that is itself a role's ARN
//     stands for that role.
//
// An access key whose ID begins with ASIA is a temporary one, and needs a session token.
//
// IAM policies, of which there are none, are taken to allow the administrator everything
// and a role what concerns no key. So where a key policy leaves the decision to the
// account (its principal is the account or its root, as in the default policy), it allows
// the administrator alone; a role needs a statement of its own, as in the documentation's
// policies for enclaves.
//
// Over TCP the Host header must name this service, so that no page in the user's browser reaches it by DNS rebinding.
//
// # Key policies
//
// An explicit deny wins over an allow, and what nothing allows is denied. A statement has
// Effect, Principal, Action and Resource, and may have Sid and Condition. Conditions follow the IAM User Guide:
//
//   - operators: StringEquals, StringEqualsIgnoreCase, StringLike, their negations, and Bool, each with ForAllValues:
//     or ForAnyValue: before it and IfExists behind it; and Null,
//   - keys: kms:RecipientAttestation:ImageSha384, kms:RecipientAttestation:PCR0 to PCR31, kms:EncryptionContext:KEY,
//     kms:EncryptionContextKeys and aws:SecureTransport.
//
// A policy with anything else is refused when it is put, never misread later. So is a Deny with a principal, an action, a
// resource or a condition that can never match here, since it would protect nothing.
//
// Config.Log gets a line for each request that is denied: the condition that failed, what it wants and what it saw.
//
// # Attestation documents
//
// A document must verify (package attest) against one of Config.Roots by the clock, hold
// an RSA public key, and be at most MaxAge old. AWS publishes neither that age nor the
// errors for documents that are refused; here they are ValidationException with the broken
// rule. Nothing keeps a document from being used twice within MaxAge, as with AWS: what is
// sent back can be read by its enclave only.
//
// # Files
//
// Each key is a file of its own in Config.Dir, sealed with AES-256-GCM together with its
// policy and aliases, and bound to its name. What seals it is derived from the file
// "secret" there and from the user's root of attestation.
//
// # Locks
//
// Service.mu guards the keys' map and is held while one is written. Records are never
// changed, only replaced, so nothing is held while a request computes. The package starts
// no goroutines; one process at a time can have a folder open.
package kms
