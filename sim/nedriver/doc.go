// Package nedriver is the Nitro Enclaves (NE) driver in user space: what Linux's nitro_enclaves module is to a
// parent instance, for a parent instance that is this process.
//
// It keeps the seam of the Linux driver's two files. The lower part (pci.go) knows how to talk to the NE PCI
// device: over vfio-user it switches the device on, arms its two vectors, sends one command at a time and hears
// its events. The upper part (driver.go, enclave.go, memregion.go) knows what a program may ask: the meaning of
// every ioctl, with the checks of ne_misc_dev.c in their order and the same error for each. Between them stands
// the pciDevice interface.
//
// Around them is the simulated parent that the driver's rules are about: a Host with its CPUs and physical
// memory, and Processes with an address space of pages of several sizes.
//
// Source of all behaviour: drivers/virt/nitro_enclaves/ne_misc_dev.c and ne_pci_dev.c of Linux, and the header
// include/uapi/linux/nitro_enclaves.h. Where nesim does better than a detail of the Linux driver (a lost page
// reference, an enclave state made up when SLOT_INFO fails) the code says so.
//
// # Ownership
//
// A Driver owns its device connection, one goroutine for the device's events, and every enclave; Close ends them.
// An Enclave is an open file: each is closed by who has it, or by Process.Exit; the last Close frees the slot.
// Memory lives as long as its Mapping or an enclave that has pages of it.
//
// # Locks
//
// In the order they are taken, the Linux driver's names in brackets:
//
//	Driver.listMu [enclaves_list_mutex], also for the whole of CreateVM, an enclave's release and event work
//	enclave.infoMu [enclave_info_mutex], for the whole of an ioctl
//	one of:
//	  cpuPool.mu [ne_cpu_pool.mutex], then Host.mu
//	  Process.mu, then Host.mu
//	  dmaTable.mu, then pci.mu
//	  pci.mu [pci_dev_mutex], for the whole of a command
//
// Mapping.mu (before Host.mu) and enclave.pollMu are innermost: nothing is waited for while one is held.
package nedriver
