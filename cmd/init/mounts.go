package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	noExec   = unix.MS_NOSUID | unix.MS_NOEXEC
	noDevice = unix.MS_NODEV | noExec
)

// openConsole mounts /dev and makes its console the standard input, output and error. The kernel opens a console of
// its own for init only when the ramdisk carries the node.
func openConsole() error {
	if err := mountDev(); err != nil {
		return err
	}
	fd, err := unix.Open("/dev/console", unix.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return fmt.Errorf("open /dev/console: %w", err)
	}
	for std := range 3 {
		if fd == std {
			continue
		}
		if err := unix.Dup2(fd, std); err != nil {
			return fmt.Errorf("use /dev/console: %w", err)
		}
	}
	if fd > 2 {
		unix.Close(fd)
	}
	return nil
}

// mountDev mounts /dev, unless the kernel did (CONFIG_DEVTMPFS_MOUNT).
func mountDev() error {
	err := mount("dev", "/dev", "devtmpfs", noExec, "")
	if errors.Is(err, unix.EBUSY) {
		return nil
	}
	return err
}

// mount mounts a file system, creating its directory if need be.
func mount(source, target, kind string, flags uintptr, data string) error {
	if err := os.Mkdir(target, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mount %s: %w", target, err)
	}
	return nil
}

// enterRoot makes dir the root directory and mounts in it what a workload expects. The ramdisk is the kernel's own
// root, which pivot_root(2) refuses, so dir is moved over it.
func enterRoot(dir string) error {
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s: %w", dir, err)
	}
	if err := unix.Chdir(dir); err != nil {
		return fmt.Errorf("enter %s: %w", dir, err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move %s to /: %w", dir, err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("chroot %s: %w", dir, err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter /: %w", err)
	}
	return mountAll()
}

// mountAll mounts the file systems that AWS's init mounts, with its flags.
func mountAll() error {
	if err := mountDev(); err != nil {
		return err
	}
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
		data                 string
	}{
		{"proc", "/proc", "proc", noDevice, ""},
		{"tmpfs", "/run", "tmpfs", noDevice, "mode=0755"},
		{"tmpfs", "/tmp", "tmpfs", noDevice, ""},
		{"shm", "/dev/shm", "tmpfs", noDevice, ""},
		{"devpts", "/dev/pts", "devpts", noExec, ""},
		{"sysfs", "/sys", "sysfs", noDevice, ""},
		{"cgroup_root", "/sys/fs/cgroup", "tmpfs", noDevice, "mode=0755"},
	} {
		if err := mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
			return err
		}
	}
	for _, l := range [][2]string{
		{"/proc/self/fd", "/dev/fd"},
		{"/proc/self/fd/0", "/dev/stdin"},
		{"/proc/self/fd/1", "/dev/stdout"},
		{"/proc/self/fd/2", "/dev/stderr"},
	} {
		if err := os.Symlink(l[0], l[1]); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return mountCgroups()
}

// mountCgroups mounts a version 1 hierarchy for every controller of the kernel that still has one.
func mountCgroups() error {
	list, err := os.ReadFile("/proc/cgroups")
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a kernel without cgroups
	}
	if err != nil {
		return err
	}
	for _, name := range enabledControllers(list) {
		dir := "/sys/fs/cgroup/" + name
		err := mount(name, dir, "cgroup", noDevice, name)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
			err = os.Remove(dir) // built for version 2 alone
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// enabledControllers reads /proc/cgroups: a heading, then name, hierarchy, number of cgroups, enabled.
func enabledControllers(list []byte) (names []string) {
	for line := range bytes.Lines(list) {
		f := strings.Fields(string(line))
		if len(f) == 4 && !strings.HasPrefix(f[0], "#") && f[3] == "1" {
			names = append(names, f[0])
		}
	}
	return names
}
