// Package pcidev is the Nitro Enclaves (NE) PCI device: its configuration space,
// its registers, its eleven commands and its two interrupts, as a state machine
// over a Hypervisor that does the work.
//
// Source of every register, command and layout: ne_pci_dev.h of the Linux driver
// (drivers/virt/nitro_enclaves). All integers are little endian.
//
// # Ownership and goroutines
//
// Serve makes one Device and one Session of the Hypervisor for each connection.
// A Device has one goroutine, its worker, from NewDevice to Close. A Session's
// methods are called one at a time: quick commands from the goroutine that writes
// NE_COMMAND (the answer is wanted within microseconds), those that may take long
// (ENCLAVE_START, ENCLAVE_STOP, SLOT_FREE) and resets from the worker, so that the
// registers stay live meanwhile. Either way the reply is announced by the reply
// vector.
//
// Close waits for the command under way, then closes the Session and waits for it.
//
// # Locks
//
// Device.mu guards the registers. It is never held while the Session or the Observer
// is called, so that these may call back (notify); Interrupts are called with it
// held, and their locks come after it.
package pcidev
