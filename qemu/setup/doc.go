// Package setup finds what an enclave's virtual machine is made of: a QEMU and an enclave kernel with its modules.
//
// Each is looked for in this order: the one that the user names (NESIM_QEMU; NESIM_KERNEL with NESIM_MODULES); for QEMU,
// the one on PATH, if it is good enough; then what fetch.sh, beside this file, has unpacked into a cache folder. The
// cache folder is NESIM_CACHE if that is set, else the first that holds the part of: .cache of the checkout whose
// bin/nesim the running program is, and nesim in the user's cache folder. The working folder never counts: a program that
// somebody left there must not run because nesim was started there.
//
// Functions here keep no state, start no goroutines, and may be called at any time from any goroutine.
package setup

import (
	"os"
	"path/filepath"
	"syscall"
)

// The places in which parts are found, in words for people.
const (
	fromPath      = "PATH"
	fromCheckout  = "the checkout of this nesim"
	fromUserCache = "your cache folder"
)

// cachedFile returns the path of name (such as "kernel/vmlinuz") in the first cache folder that has it, or "", and in
// words which folder that is.
func cachedFile(name string) (path, from string) {
	if dir := os.Getenv("NESIM_CACHE"); dir != "" {
		return fileIn(dir, name), "NESIM_CACHE"
	}
	if dir := checkoutCache(); dir != "" && trusted(dir, name) {
		return fileIn(dir, name), fromCheckout
	}
	if dir, err := os.UserCacheDir(); err == nil && trusted(filepath.Join(dir, "nesim"), name) {
		return fileIn(filepath.Join(dir, "nesim"), name), fromUserCache
	}
	return "", ""
}

func fileIn(dir, name string) string {
	path, err := filepath.Abs(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return ""
	}
	return path
}

// executable is os.Executable, which follows links; a variable for the tests.
var executable = os.Executable

// checkoutCache returns .cache of the checkout in whose bin the running program was built, or "".
func checkoutCache() string {
	exe, err := executable()
	if err != nil || filepath.Base(filepath.Dir(exe)) != "bin" {
		return ""
	}
	top := filepath.Dir(filepath.Dir(exe))
	if info, err := os.Stat(filepath.Join(top, "go.mod")); err != nil || !info.Mode().IsRegular() {
		return "" // installed: a .cache there is not nesim's
	}
	return filepath.Join(top, ".cache")
}

// trusted reports whether name in dir is a file that nobody but this user and root can have put there.
func trusted(dir, name string) bool {
	for at := filepath.Join(dir, name); ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		if err != nil {
			return false
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		if !ok || stat.Uid != 0 && int(stat.Uid) != os.Geteuid() || info.Mode().Perm()&0o002 != 0 {
			return false
		}
		if at == filepath.Clean(dir) {
			return true
		}
	}
}
