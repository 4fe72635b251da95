// Package eif reads, checks, measures, signs and builds Enclave Image Format files.
//
// An EIF is a header of 548 bytes followed by sections, each a header of 12 bytes and its data: one kernel, one
// command line, ramdisks, and optionally a signature and metadata. Every number in it is big-endian. The source of
// the layout and of the measuring rules is the specification in the README of AWS's public repository
// aws-nitro-enclaves-image-format ("the specification" below) and its code, with which built files agree to the byte.
//
// Files are never loaded whole: Open reads the headers, and Measure and Build stream the rest once through a few
// buffers.
//
// Goroutines: Measure, Check and Build start two hashing goroutines each and wait for both before they return. An
// Image has no state that changes and takes no locks; any number of goroutines may use it at once.
package eif
