// Package conformance holds what is asked of both NE drivers: Linux's own in a primary VM, and that in user space,
// package nedriver. Its tests boot primary VMs, so that the device, the hypervisor and the vsock are driven by
// programs that nesim's authors did not write: the kernel's driver and its sample.
//
// Table makes the same calls on a World, which each driver is behind: program guest has one of system calls, the tests
// one of package nedriver.
package conformance
