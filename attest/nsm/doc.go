// Package nsm is the Nitro Secure Module: what an enclave finds behind /dev/nsm.
//
// An NSM has 32 PCRs of SHA-384. Those below 16 are locked from the start and tell of
// the image and of the parent instance; the others are the enclave's to extend and to
// lock. Its attestation documents hold all that are locked.
//
// Requests and responses are CBOR as the aws-nitro-enclaves-nsm-api crate has it
// (src/api/mod.rs, called "the API" here): the enums Request and Response in the form
// that serde_cbor gives them, a variant without fields as a text string, others as a
// map of one entry.
//
// An NSM is safe for concurrent use and starts no goroutines. NSM.mu guards its PCRs;
// it is not held while a document is signed.
package nsm
