// Package pki issues the certificates that sign attestation documents: a chain of
// the depth and the profile of AWS's (root, region, zone, instance, enclave; P-384
// and SHA-384 throughout), with names that say it is simulated.
//
// The profile was read off documents of real enclaves: validity, key usage, basic
// constraints, serial numbers, the fields of the names and their order. Only CRL
// distribution points are missing, since nothing is served there; the specification
// has them ignored.
//
// # Locks
//
// Enclave.mu, then Instance.mu. An Authority does not change.
package pki
