package qemu

import (
	"context"
	"fmt"
	"os"
)

// Accel is what runs the guest's instructions.
type Accel string

const (
	// Auto is KVM where it works, else TCG. Whether it works is found out by a [Probe]: a /dev/kvm that opens may still
	// be unable to run a kernel.
	Auto Accel = "auto"
	// KVM is the host kernel's.
	KVM Accel = "kvm"
	// TCG is QEMU's translator: slow, and it works everywhere.
	TCG Accel = "tcg"
)

// kvmDevice is the host kernel's KVM; a variable for the tests.
var kvmDevice = "/dev/kvm"

// ParseAccel reads auto, kvm or tcg; "" means $NESIM_ACCEL, else auto.
func ParseAccel(s string) (Accel, error) {
	from := "accelerator"
	if s == "" {
		from, s = "NESIM_ACCEL", os.Getenv("NESIM_ACCEL")
	}
	switch a := Accel(s); a {
	case "":
		return Auto, nil
	case Auto, KVM, TCG:
		return a, nil
	}
	return "", fmt.Errorf("%s %q: choose auto, kvm or tcg", from, s)
}

// Choose returns the accelerator to use: KVM or TCG. Where that is not known yet it has KVM probed, which takes kvmTime at
// most, and remembers what comes out; say gets a line for people when that begins and when KVM does not work, and may be
// nil. The error says why KVM, where it was demanded, cannot be used, or is ctx's.
func (a Accel) Choose(ctx context.Context, probe Probe, say func(string)) (Accel, error) {
	if a == TCG {
		return TCG, nil
	}
	f, err := os.OpenFile(kvmDevice, os.O_RDWR, 0)
	if err == nil {
		f.Close()
	}
	switch {
	case a == KVM && err != nil:
		return "", fmt.Errorf("cannot use KVM: %w; give this user access to %s or choose tcg", err, kvmDevice)
	case err != nil:
		return TCG, nil
	}
	if say == nil {
		say = func(string) {}
	}
	found, sure, err := probe.outcome(ctx, a, say)
	switch {
	case err != nil:
		return "", err
	case found.Works, a == KVM && !sure:
		return KVM, nil
	case a == KVM:
		return "", fmt.Errorf("KVM does not work here: %s; choose auto or tcg", found.Why)
	}
	return TCG, nil
}
