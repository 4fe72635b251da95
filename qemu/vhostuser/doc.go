// Package vhostuser is the back end of the vhost-user protocol: it lets a
// virtio device of QEMU live in this process.
//
// QEMU (the front end) connects to a UNIX socket, hands over the guest's memory
// and the addresses of the device's virtqueues, and stays out of the way: guest
// and back end then share the queues, and wake each other by eventfds.
//
// The package has three layers, none of which knows of any device:
//
//   - messages (message.go): the protocol's packets with their descriptors;
//   - the session (session.go): one front end's requests, from its connection
//     to its end, and the state they build up;
//   - the queue (queue.go, ring.go, chain.go, memory.go): a split virtqueue in
//     the guest's memory.
//
// A device is the small interface Device.
//
// # Trust
//
// Nothing the guest or the front end says is believed: every index, length and
// address is checked before it is used, each field of the shared memory is read
// once, and every loop is bounded. What breaks the rules of a virtqueue stops
// that queue (its error eventfd is signalled and Device.StopQueue gets the
// reason); what breaks the protocol ends the session. Guest memory is mapped
// only from descriptors that are sealed against shrinking, since touching a
// mapping behind a file's end would kill the process.
//
// # Goroutines and locks
//
// ServeConn handles requests on the caller's goroutine. Each running queue has
// one goroutine more, which waits for kicks; ServeConn ends them all before it
// returns. Queue.mu is held while a queue is processed, so Device.Process is
// never called twice at once for one queue. A device may take locks of its own
// inside Process, and may call Run of another queue there as long as it does so
// in one direction only.
//
// The shared structures are little-endian (virtio 1.x) and are accessed in
// place: the package works on little-endian machines.
package vhostuser
