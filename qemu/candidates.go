package qemu

import "strings"

// Candidates are the accelerators to try in turn for another machine of a QEMU binary than a microvm.
func (a Accel) Candidates(binary string) ([]Accel, error) { return a.candidates(newVerdict(binary)) }

// RecordKVMFailure remembers for this host, kernel and QEMU binary that KVM does not work, and why.
func RecordKVMFailure(binary, why string) { newVerdict(binary).record(why) }

// KVMFailed is whether a line of QEMU's standard error tells that KVM cannot go on with a guest. QEMU then stops the
// guest, and does not end.
func KVMFailed(line string) bool {
	return strings.Contains(line, "KVM internal error") || strings.Contains(line, "kvm run failed")
}
