// Package oci turns container images into applications for package pack.
//
// Open finds an image: a `docker save` or OCI archive, an OCI image layout folder, or a name that the local container
// engine or else a registry knows. Application applies its layers, as the "Image Layer Filesystem Changeset
// Specification" of the OCI image specification has it, and reads its configuration as nitro-cli does.
//
// What an image holds is hostile. Names and links are resolved inside its root directory, never on this machine; sizes,
// counts and links followed are bounded, the contents by what results, as of a sparse file; a context's end stops it
// anywhere; and contents are never held in memory: a layer that is compressed or comes from elsewhere is
// unpacked into one spool file without a name, which goes away with the Image, and an uncompressed layer of an archive
// is read from the archive. Every layer is checked against its digest.
//
// Goroutines: Application starts a few to check digests and waits for them. An Image is for one goroutine at a time;
// the contents of its Application's files may be read by any number, until Close.
package oci
