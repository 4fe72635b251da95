// Package qemu runs one enclave as one QEMU microvm: it writes the command line, starts the process,
// speaks QMP with it, carries its serial console, and reports in one [Exit] how it ended.
//
// # Ownership
//
// A [Machine] owns its QEMU process, the QMP connection and every goroutine below; all are gone when
// [Machine.Wait] returns. It reads the kernel and the initrd through its own duplicates of the
// caller's descriptors, so the caller may close both as soon as [Start] returns.
//
// # Goroutines
//
// supervise (one a machine) decides everything: it alone reads QMP events, the process's end, the
// requests to stop and the kernel's last words on the console, so the first cause of an end wins and
// no lock is held while anything is waited for. Beside it run
//   - those of the process (package child): one that reaps it, and os/exec's two copiers, for the console
//     and for QEMU's own messages;
//   - relay.run, which hands console text to the caller's writer, so that a slow writer stalls neither
//     QEMU nor supervision;
//   - go-qemu's reader, and at most one goroutine a command: a command cannot be cancelled, it ends
//     with the connection, and the connection ends with the process.
//
// # Locks
//
// Machine.mu, relay.mu and monitor.busy are leaves: none is taken while holding another.
package qemu
