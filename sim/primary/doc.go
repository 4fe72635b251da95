// Package primary boots a primary VM, the parent of enclaves: a QEMU q35 machine with the NE PCI device attached by
// vfio-user, a vsock device for CID 3, Debian's kernel with its own, unmodified NE driver, busybox, and whatever the
// user brings along. In it one command runs, or a shell.
//
// What the two sides say to each other is in package plan; the VM's first process is cmd/parentinit. The command's
// input and output go over virtio-serial ports, one socket pair each, the kernel's messages over the serial console.
//
// Ownership: Run owns the QEMU process, its sockets and every goroutine but one: that which reads Config.Stdin, and
// which nothing can wake while it waits there. QEMU dies with the process that started it, however that dies.
package primary
