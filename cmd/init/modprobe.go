package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The kernel starts a program by its path, in the root directory that process 1 has by then, from which neither this
// program nor the modules can be seen. So process 1 keeps both open at these descriptors, wherever its root goes and
// whatever program it becomes, and /proc leads to them.
const (
	programFD = 1000
	modulesFD = 1001

	helper      = "/proc/1/fd/1000"
	openModules = "/proc/1/fd/1001"
)

// modprobePath sets the program that the kernel starts to load modules (Documentation/admin-guide/sysctl/kernel.rst).
const modprobePath = "/proc/sys/kernel/modprobe"

// offerModules makes what is in dir ready to be loaded on demand, and reports whether there is anything: it keeps this
// program and dir open, and makes the devices whose opening loads a module. kept is whether the descriptors stay open
// in the program that process 1 becomes.
func offerModules(dir, program string, kept bool) (bool, error) {
	list, err := os.ReadFile(dir + "/modules.devname")
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	flags := unix.O_CLOEXEC
	if kept {
		flags = 0
	}
	for _, f := range []struct {
		path string
		fd   int
	}{{program, programFD}, {dir, modulesFD}} {
		fd, err := unix.Open(f.path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return false, fmt.Errorf("open %s: %w", f.path, err)
		}
		if err := unix.Dup3(fd, f.fd, flags); err != nil {
			return false, fmt.Errorf("keep %s open: %w", f.path, err)
		}
		unix.Close(fd)
	}
	return true, makeDevices("/dev", string(list))
}

// makeDevices makes the character devices that a modules.devname lists: module, name and "cMAJOR:MINOR". They have the
// mode that the kernel itself would give them.
func makeDevices(dir, list string) error {
	for line := range strings.Lines(list) {
		f := strings.Fields(line)
		if len(f) != 3 || !fs.ValidPath(f[1]) {
			continue
		}
		major, minor, ok := parseDevice(f[2])
		if !ok {
			continue
		}
		name := dir + "/" + f[1]
		if err := os.MkdirAll(path.Dir(name), 0o755); err != nil {
			return err
		}
		err := unix.Mknod(name, unix.S_IFCHR|0o600, int(unix.Mkdev(major, minor)))
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("make device %s: %w", name, err)
		}
	}
	return nil
}

// parseDevice reads the number of a character device: "c10:200".
func parseDevice(text string) (major, minor uint32, ok bool) {
	text, isChar := strings.CutPrefix(text, "c")
	first, second, _ := strings.Cut(text, ":")
	a, err := strconv.ParseUint(first, 10, 12)
	b, err2 := strconv.ParseUint(second, 10, 20)
	return uint32(a), uint32(b), isChar && err == nil && err2 == nil
}

// setHelper tells the kernel to start this program, as modprobe, for the modules it asks for. /proc must be mounted.
func setHelper() error {
	if err := os.WriteFile(modprobePath, []byte(helper), 0); err != nil {
		return fmt.Errorf("set the program that loads modules: %w", err)
	}
	return nil
}

// modprobe loads the modules that its arguments ask for, by their names or aliases, as modprobe(8) does; words that
// begin with "-" are the kernel's and iptables's options "-q" and "--".
func modprobe(args []string, dir string) error {
	dep, err := os.ReadFile(dir + "/modules.dep")
	if err != nil {
		return err
	}
	alias, err := os.ReadFile(dir + "/modules.alias")
	if err != nil {
		return err
	}
	for _, wanted := range args {
		if strings.HasPrefix(wanted, "-") {
			continue
		}
		files := resolve(wanted, string(dep), string(alias))
		if len(files) == 0 {
			return fmt.Errorf("module %s not found", wanted)
		}
		for _, name := range files {
			if err := loadCompressed(dir + "/" + name); err != nil {
				return err
			}
		}
	}
	return nil
}

// resolve returns the files of the modules of a name or alias, each after all that it needs.
func resolve(wanted, dep, alias string) (files []string) {
	needs := map[string][]string{}
	for line := range strings.Lines(dep) {
		file, rest, _ := strings.Cut(line, ":")
		needs[file] = strings.Fields(rest)
	}
	seen := map[string]bool{}
	var visit func(file string)
	visit = func(file string) {
		if seen[file] {
			return
		}
		seen[file] = true
		for _, need := range needs[file] {
			visit(need)
		}
		files = append(files, file)
	}
	for _, name := range append(aliased(wanted, alias), underscored(wanted)) {
		if file := name + ".ko.gz"; needs[file] != nil {
			visit(file)
		}
	}
	return files
}

// aliased returns the names of the modules with an alias that matches. A modules.alias has lines "alias PATTERN NAME".
func aliased(wanted, alias string) (names []string) {
	for line := range strings.Lines(alias) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		if ok, err := path.Match(underscored(f[1]), underscored(wanted)); ok && err == nil {
			names = append(names, f[2])
		}
	}
	return names
}

// underscored is a name as modules' names are compared: "-" and "_" are one.
func underscored(name string) string { return strings.ReplaceAll(name, "-", "_") }

func loadCompressed(path string) error {
	packed, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	image, err := io.ReadAll(r)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := unix.InitModule(image, ""); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load module %s: %w", path, err)
	}
	return nil
}
