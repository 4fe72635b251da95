package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/internal/guestwire"
)

// becomeNext puts the modules in place and becomes the other init, which finds everything else as the kernel left it:
// process 1, its arguments, its environment, nothing mounted. It returns only with an error.
func becomeNext() error {
	if err := withMounts(putModulesInPlace); err != nil {
		return err
	}
	err := unix.Exec(guestwire.NextInit, append([]string{"/init"}, os.Args[1:]...), os.Environ())
	return fmt.Errorf("start %s: %w", guestwire.NextInit, err)
}

// withMounts calls do while /dev and /proc are mounted. The ramdisk has a /dev already.
func withMounts(do func() error) error {
	if err := mount("dev", "/dev", "devtmpfs", noExec, ""); err != nil {
		return err
	}
	defer unix.Unmount("/dev", 0)
	if err := mount("proc", "/proc", "proc", noDevice, ""); err != nil {
		return err
	}
	defer os.Remove("/proc")
	defer unix.Unmount("/proc", 0)
	return do()
}

func putModulesInPlace() error {
	if err := loadModules(modules, ""); err != nil {
		return err
	}
	onDemand, err := offerModules(modules, "/init", true)
	if err != nil || !onDemand {
		return err
	}
	return setHelper()
}
