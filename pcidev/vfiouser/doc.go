// Package vfiouser speaks vfio-user: a PCI device in one process, its driver or
// virtual machine in another, over a UNIX stream socket.
//
// Source: QEMU's docs/interop/vfio-user.rst, versions 0.0 and 0.1, and the
// structures of <linux/vfio.h> that it refers to. All integers are little
// endian here (the specification says host order; nesim runs on little-endian
// hosts), all sizes and offsets are in bytes.
//
// # Server
//
// A Server joins one connection to a Device, the client's memory (DMA) and the
// client's interrupts (IRQs). Server.Serve runs on the caller's goroutine,
// starts none, and answers messages in the order they came; every message is
// checked in one place (request.parse) before anything acts on it. What is
// unknown or malformed gets the protocol's error reply; the connection ends
// only when message framing is lost or the version cannot be agreed.
//
// # Client
//
// A Client is what a driver needs. Its methods may be called from any
// goroutine; requests go one at a time.
//
// # Blocking sockets
//
// Both ends read their socket with blocking system calls instead of the Go
// poller: one call a wait, no goroutine switch. A second goroutine that wants
// to end the wait shuts the socket down. A connection therefore costs one
// operating-system thread while it waits.
//
// # Locks
//
// DMA and IRQs have one lock each, never held together; no call leaves the
// package while one is held.
//
// # Descriptors
//
// A received descriptor belongs to the message it came with, then to the DMA or
// IRQs that takes it; everything not taken is closed when the message has been
// handled.
package vfiouser
