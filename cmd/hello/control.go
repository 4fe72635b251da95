package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// control serves the command port.
func control(c *conn) {
	lines := bufio.NewScanner(c)
	for lines.Scan() {
		answer, act := command(lines.Text())
		if _, err := fmt.Fprintln(c, answer); err != nil {
			return
		}
		if act != nil {
			c.deliver()
			act()
			return
		}
	}
}

// command reads a command and returns the line that answers it, and what to do afterwards.
func command(line string) (answer string, act func()) {
	name, arg, _ := strings.Cut(strings.TrimSpace(line), " ")
	switch name {
	case "env":
		return strings.Join(os.Environ(), " "), nil
	case "attest":
		return attestation(arg), nil
	case "exit":
		code, err := strconv.ParseUint(arg, 10, 8)
		if err != nil {
			return "error: exit wants a code from 0 to 255", nil
		}
		return fmt.Sprint("exiting with code ", code), func() { os.Exit(int(code)) }
	case "crash":
		return "crashing", crash
	case "panic":
		return "panicking the kernel", panicKernel
	case "poweroff":
		return "powering off", func() { restart(unix.LINUX_REBOOT_CMD_POWER_OFF) }
	case "reboot":
		return "rebooting", func() { restart(unix.LINUX_REBOOT_CMD_RESTART) }
	case "triple-fault":
		return "faulting", tripleFault
	case "hang":
		return "hanging", func() { unix.Kill(os.Getpid(), unix.SIGSTOP) }
	}
	return "error: commands are env, attest [NONCE], exit N, crash, panic, poweroff, reboot, triple-fault, hang", nil
}

// crash dies by SIGSEGV with the kernel's own handling: the runtime's would print a long trace and exit with a code.
func crash() {
	var byKernel [32]byte // struct kernel_sigaction, all zero: SIG_DFL, no flags, no mask
	unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGSEGV), uintptr(unsafe.Pointer(&byKernel)), 0, 8, 0, 0)
	unix.Kill(os.Getpid(), unix.SIGSEGV)
}

// panicKernel asks for a panic by the magic SysRq key, Documentation/admin-guide/sysrq.rst command "c".
func panicKernel() {
	if err := os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0); err != nil {
		fmt.Println("hello: panic the kernel:", err)
	}
}

// restart has the kernel end the machine, by a command of reboot(2).
func restart(command int) {
	unix.Sync()
	if err := unix.Reboot(command); err != nil {
		fmt.Println("hello: reboot:", err)
	}
}

// tripleFault has the kernel restart by a triple fault: Documentation/ABI/testing/sysfs-kernel-reboot.
func tripleFault() {
	if err := os.WriteFile("/sys/kernel/reboot/type", []byte("triple"), 0); err != nil {
		fmt.Println("hello: choose a triple fault:", err)
	}
	restart(unix.LINUX_REBOOT_CMD_RESTART)
}
