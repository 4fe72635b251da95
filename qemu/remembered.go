package qemu

// RememberedKVM tells whether boots have found out that KVM does not work here with this QEMU, as Auto remembers it,
// and names the file that keeps it: who removes that has KVM tried again.
func RememberedKVM(binary string) (file string, unusable bool) {
	v := newVerdict(binary)
	return string(v), v.unusable()
}
