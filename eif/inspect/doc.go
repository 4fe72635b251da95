// Package inspect looks into EIFs, whoever built them: what kind of kernel one has and whether it can run here, what
// files its ramdisks hold, what differs between two of them; and takes one apart into files.
//
// All that it reads is hostile: every length is bounded, and contents are streamed, never held in memory. It keeps no
// state and starts no goroutines, but for those of the decompressors, which end with the call.
package inspect
