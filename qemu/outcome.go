package qemu

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/internal/files"
)

// Outcome is what a [Probe] has found out.
type Outcome struct {
	Works bool      // KVM runs guests
	Why   string    // it does not, in one line
	When  time.Time // it was found out
}

// maxOutcome bounds the file of an outcome, in bytes.
const maxOutcome = 4 << 10

// outcomeFile is the path of the file that keeps an outcome. Empty: nothing is kept.
type outcomeFile string

// file names the file, in the user's cache folder, for this host, its kernel, the QEMU and, where that is not one that is
// known to be good, the guest's kernel.
func (p Probe) file(kernel *os.File) (outcomeFile, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", nil
	}
	var host unix.Utsname
	if err := unix.Uname(&host); err != nil {
		return "", nil
	}
	real, err := filepath.EvalSymlinks(p.Binary)
	if err != nil {
		return "", nil // starting it says why
	}
	info, err := os.Stat(real)
	if err != nil {
		return "", nil
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "%s\n%s\n%s\n%s\n%d\n%d\n", host.Nodename, host.Release, host.Version, real, info.Size(), info.ModTime().UnixNano())
	if p.Kernel == "" {
		if _, err := io.Copy(sum, io.NewSectionReader(kernel, 0, math.MaxInt64)); err != nil {
			return "", fmt.Errorf("read the kernel: %w", err)
		}
	}
	return outcomeFile(filepath.Join(cache, "nesim", "kvm-"+hex.EncodeToString(sum.Sum(nil)[:8])+".json")), nil
}

// load reads the outcome, where there is one.
func (o outcomeFile) load() (found Outcome, known bool) {
	f, err := os.Open(string(o))
	if err != nil {
		return Outcome{}, false
	}
	defer f.Close()
	if err := json.NewDecoder(io.LimitReader(f, maxOutcome)).Decode(&found); err != nil {
		return Outcome{}, false
	}
	found.Why = oneLine(found.Why)
	return found, true
}

// save keeps the outcome. A cache that cannot be written costs only time.
func (o outcomeFile) save(found Outcome) {
	if o == "" {
		return
	}
	found.When = time.Now().UTC().Truncate(time.Second)
	text, err := json.Marshal(found)
	if err == nil && os.MkdirAll(filepath.Dir(string(o)), 0o700) == nil {
		_ = files.Write(string(o), append(text, '\n'), 0o600)
	}
}

// Remembered returns what the probe has found out before, where that is remembered, and the file that keeps it: who removes
// the file has KVM tried again.
func (p Probe) Remembered() (found Outcome, file string, known bool) {
	kernel, err := p.open()
	if err != nil {
		return Outcome{}, "", false
	}
	defer kernel.Close()
	kept, err := p.file(kernel)
	if err != nil {
		return Outcome{}, "", false
	}
	found, known = kept.load()
	return found, string(kept), known
}

// blamesKVM reports whether QEMU's own words lay a failure on KVM.
func blamesKVM(words string) bool { return strings.Contains(strings.ToLower(words), "kvm") }

// KVMFailed reports whether a line of QEMU's standard error says that KVM cannot go on with a guest. QEMU then stops the
// guest, and does not end.
func KVMFailed(line string) bool {
	return strings.Contains(line, "KVM internal error") || strings.Contains(line, "kvm run failed")
}
