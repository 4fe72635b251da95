// Program parentinit is the first process of a primary VM that `nesim parent` boots. It makes the VM a parent instance
// that is ready to run enclaves (file systems, the kernel's modules, huge pages, the CPU pool), runs the user's command
// or an interactive shell, reports how that ended, and powers the VM off. See package plan for what it is told.
//
// It plays three parts: the first process, which only starts the second and reaps; the session, which does the work;
// and, under the name vsock, the user's command to dial and listen on vsock ports.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/sim/primary/plan"
)

func main() {
	switch {
	case filepath.Base(os.Args[0]) == "vsock":
		if err := vsockCommand(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "vsock:", err)
			os.Exit(1)
		}
	case os.Getpid() == 1:
		first()
	default:
		session()
	}
}

// first is the first process: it must outlive every signal and reap what others leave.
func first() {
	runtime.GOMAXPROCS(1)
	signal.Notify(make(chan os.Signal, 1)) // caught signals, unlike ignored ones, are reset in children
	if err := openConsole(); err != nil {
		fail(err)
	}
	child, err := syscall.ForkExec(plan.Init, []string{plan.Init}, &syscall.ProcAttr{
		Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		fail(err)
	}
	for {
		pid, err := unix.Wait4(-1, nil, 0, nil)
		if pid == child || err != nil && err != unix.EINTR {
			break
		}
	}
	unix.Sync()
	fail(unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF))
}

// fail tells the kernel's console why there is no going on; the kernel panics when its first process ends.
func fail(err error) {
	fmt.Fprintln(os.Stderr, "init:", err)
	os.Exit(1)
}

func openConsole() error {
	if err := mount("dev", "/dev", "devtmpfs", ""); err != nil {
		return err
	}
	fd, err := unix.Open("/dev/console", unix.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return fmt.Errorf("open /dev/console: %w", err)
	}
	for std := range 3 {
		if err := unix.Dup2(fd, std); err != nil {
			return fmt.Errorf("use /dev/console: %w", err)
		}
	}
	return nil
}
