package qemu

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/internal/files"
)

// Accel is what runs the guest's instructions.
type Accel string

const (
	// Auto is KVM where it works, else TCG. Whether it works is found out by booting: a /dev/kvm
	// that opens may still be unable to run a kernel.
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

// candidates are the accelerators to try in turn.
func (a Accel) candidates(verdict verdict) ([]Accel, error) {
	if a == TCG {
		return []Accel{TCG}, nil
	}
	f, err := os.OpenFile(kvmDevice, os.O_RDWR, 0)
	if err == nil {
		f.Close()
	}
	switch {
	case a == KVM && err != nil:
		return nil, fmt.Errorf("cannot use KVM: %w; give this user access to %s or choose tcg", err, kvmDevice)
	case a == KVM:
		return []Accel{KVM}, nil
	case err != nil || verdict.unusable():
		return []Accel{TCG}, nil
	}
	return []Accel{KVM, TCG}, nil
}

// blamesKVM is whether QEMU's own words lay its end on KVM.
func blamesKVM(words string) bool { return strings.Contains(strings.ToLower(words), "kvm") }

// verdict is the file whose being there says that KVM does not work on this host, under this kernel,
// with this QEMU. Empty: nothing is remembered.
type verdict string

// newVerdict names the file for a QEMU binary, in the user's cache directory.
func newVerdict(binary string) verdict {
	cache, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	var host unix.Utsname
	if unix.Uname(&host) != nil {
		return ""
	}
	real, err := filepath.EvalSymlinks(binary)
	if err != nil {
		return ""
	}
	info, err := os.Stat(real)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%s\n%s\n%d\n%d\n",
		host.Nodename, host.Release, host.Version, real, info.Size(), info.ModTime().UnixNano()))
	return verdict(filepath.Join(cache, "nesim", "kvm-unusable-"+hex.EncodeToString(sum[:8])))
}

func (v verdict) unusable() bool {
	if v == "" {
		return false
	}
	_, err := os.Stat(string(v))
	return err == nil
}

// record remembers that KVM does not work, and why. A cache that cannot be written costs only time.
func (v verdict) record(why string) {
	if v == "" {
		return
	}
	if os.MkdirAll(filepath.Dir(string(v)), 0o700) == nil {
		_ = files.Write(string(v), []byte("KVM does not work here: "+why+"\nRemove this file to try again.\n"), 0o600)
	}
}
