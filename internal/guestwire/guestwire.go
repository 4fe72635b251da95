// Package guestwire is what programs inside an enclave and programs outside it agree on.
package guestwire

// The heartbeat: an enclave's init connects to the parent, sends a byte, and reads it back. Source: nitro-cli
// (ENCLAVE_READY_VSOCK_PORT, HEART_BEAT) and AWS's init.c (VSOCK_PORT, HEART_BEAT).
const (
	HeartbeatPort uint32 = 9000
	Heartbeat     byte   = 0xB7
)

// The vsock ports of the hello workload.
const (
	EchoPort    uint32 = 5005 // sends back what it receives
	ControlPort uint32 = 5006 // takes commands, one a line, each answered by one line
)

// SearchPath is where an enclave's init looks first for a workload whose name has no slash, whatever the workload's own
// PATH says, and the PATH of a workload without any environment. Source: AWS's init.c (DEFAULT_PATH_ENV).
const SearchPath = "/sbin:/usr/sbin:/bin:/usr/bin"

// NextInit is the path of an init that nesim's becomes once it has put the kernel's modules in place.
const NextInit = "/init.next"
