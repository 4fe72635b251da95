// Package vsockdev is a virtio-vsock device in user space (virtio 1.2, section
// 5.10): on one side the virtqueues of a guest, on the other net.Conns.
//
// The layers, from the guest up:
//
//   - packet.go: a packet's header, checked once against the buffer it came in;
//   - machine.go: the state of one connection and its credit, without any I/O;
//   - device.go: who talks to whom: the table of connections, and the turns they
//     take at the guest's receive buffers;
//   - conn.go: a connection as its user sees it.
//
// # Contracts
//
// A packet from the guest is always consumed: what makes no sense is dropped or
// answered with RST as Linux's vhost does, and an error ends one connection, never
// the queue. What the guest sends is held for the reader, within the credit it
// was given. What the user sends is copied straight into the guest's buffers;
// Write returns once it is there, and waits while the guest has given neither
// credit nor buffers. Connections with something to send take turns.
//
// # Goroutines and locks
//
// The device has no goroutine of its own but one for each Config.Connect that is
// deciding; Close waits for those. Packets of the guest's are handled on the
// transmit queue's goroutine; the guest's receive buffers are filled by whoever
// has something to put there. Locks are taken in this order: the transmit queue,
// the receive queue, then either Device.mu or Conn.mu, never both.
package vsockdev
