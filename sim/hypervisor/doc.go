// Package hypervisor plays the Nitro Hypervisor behind the NE PCI device: it keeps the slots, their memory, vCPUs and
// states, takes the enclave image out of the memory that the parent donated, checks and measures it, and has a VMM
// run it. The commands and their fields are those of ne_pci_dev.h (Linux, drivers/virt/nitro_enclaves); the states
// are enum ne_state of ne_misc_dev.h.
//
// A Session is one parent: its slots, its physical memory and its vCPUs are its own, and no other session sees them.
// Slot uids, CIDs and the number of slots are shared by all sessions.
//
// A slot is in state init, running or stopped. SLOT_ADD_* and ENCLAVE_START want init; ENCLAVE_STOP wants running or
// stopped; SLOT_FREE init or stopped. A VM that ends without ENCLAVE_STOP leaves its slot stopped and raises the
// session's event.
//
// Ownership and goroutines: a running slot has one goroutine that waits for its VM, and until the VM has booted one
// that holds the image; Session.Close and Reset wait for the slots' VMs, Hypervisor.Close for everything.
//
// Locks: Hypervisor.mu guards every field of sessions and slots, and is a leaf: Memory, VMM, VM, Observe and notify
// are called without it. What takes long marks its slot busy meanwhile; another command for that slot gets EBUSY,
// Reset and Close wait for it. Slots do not wait for each other.
package hypervisor
