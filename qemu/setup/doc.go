// Package setup finds what an enclave's virtual machine is made of: a QEMU and an enclave kernel with its modules.
//
// Each is looked for in this order: the one that the user names (NESIM_QEMU; NESIM_KERNEL with NESIM_MODULES); for QEMU,
// the one on PATH, if it is good enough; then what fetch.sh, beside this file, has unpacked into a cache folder. The
// cache folder is NESIM_CACHE if that is set, else the first that holds the part of: .cache beside the folder of the
// running program, .cache in the working folder or one above it, and nesim in the user's cache folder.
//
// Functions here keep no state, start no goroutines, and may be called at any time from any goroutine.
package setup

import (
	"os"
	"path/filepath"
	"syscall"
)

// cachedFile returns the path of name (such as "kernel/vmlinuz") in the first cache folder that has it, or "".
func cachedFile(name string) string {
	for _, dir := range cacheDirs() {
		path, err := filepath.Abs(filepath.Join(dir, name))
		if err != nil {
			continue
		}
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path
		}
	}
	return ""
}

// cacheDirs lists the cache folders to look in, the preferred first.
func cacheDirs() []string {
	if dir := os.Getenv("NESIM_CACHE"); dir != "" {
		return []string{dir}
	}
	var dirs []string
	if exe, err := os.Executable(); err == nil {
		dirs = append(dirs, filepath.Join(filepath.Dir(exe), "..", ".cache"))
	}
	if dir, err := os.Getwd(); err == nil {
		for {
			if cache := filepath.Join(dir, ".cache"); ownedByUs(cache) {
				dirs = append(dirs, cache)
			}
			parent := filepath.Dir(dir)
			if parent == dir {
				break
			}
			dir = parent
		}
	}
	if dir, err := os.UserCacheDir(); err == nil {
		dirs = append(dirs, filepath.Join(dir, "nesim"))
	}
	return dirs
}

// ownedByUs tells whether dir is this user's or root's, so that nobody can plant a program to run in a shared folder
// above the working folder.
func ownedByUs(dir string) bool {
	info, err := os.Stat(dir)
	if err != nil || !info.IsDir() {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && (stat.Uid == 0 || int(stat.Uid) == os.Geteuid())
}
