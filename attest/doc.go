// Package attest makes, reads and verifies attestation documents of Nitro
// Enclaves: a CBOR map with the enclave's PCRs, signed as COSE_Sign1 by a
// certificate whose chain ends at a root that the reader trusts.
//
// The rules are those of docs/attestation_process.md of aws-nitro-enclaves-nsm-api,
// called "the specification" here. Where it is silent, documents of real enclaves
// decide; what they do is said where it matters.
//
// The package has no state and starts no goroutines. Its rooms: attest/nsm is the
// Nitro Secure Module that enclaves ask for documents, attest/pki the certificates.
package attest
