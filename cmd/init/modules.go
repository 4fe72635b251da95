package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// loadModules loads the kernel modules that dir/order lists, one a line, each after those it needs, and then one more,
// nsm; and frees their memory. A kernel may have some of them built in.
func loadModules(dir, nsm string) error {
	if err := loadListed(dir); err != nil {
		return err
	}
	return loadOnce(nsm)
}

func loadListed(dir string) error {
	order, err := os.ReadFile(dir + "/order")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for name := range strings.Lines(string(order)) {
		if err := loadOnce(dir + "/" + strings.TrimSpace(name)); err != nil {
			return err
		}
	}
	return nil
}

// loadOnce loads a module, if it is there, and removes its file.
func loadOnce(path string) error {
	err := loadModule(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Remove(path)
}

func loadModule(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open module %s: %w", path, err)
	}
	defer unix.Close(fd)
	switch err := unix.FinitModule(fd, "", 0); {
	case err == nil, errors.Is(err, unix.EEXIST):
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.EOPNOTSUPP): // ptp_kvm, where the host is not KVM
	default:
		return fmt.Errorf("load module %s: %w", path, err)
	}
	return nil
}
