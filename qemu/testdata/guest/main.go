// Command guest is the init of the test's guests: it does what DO on the kernel's command line says.
package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	_ = unix.Mkdir("/proc", 0o755)
	_ = unix.Mkdir("/sys", 0o755)
	_ = unix.Mount("proc", "/proc", "proc", 0, "")
	_ = unix.Mount("sysfs", "/sys", "sysfs", 0, "")
	for _, module := range strings.Fields(strings.ReplaceAll(os.Getenv("MODULES"), ",", " ")) {
		if err := load("/" + module + ".ko"); err != nil {
			fmt.Println("module", module, err)
		}
	}
	fmt.Println("guest is up")
	switch do := os.Getenv("DO"); do {
	case "poweroff":
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	case "reboot":
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	case "halt":
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_HALT)
	case "panic":
		_ = os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0)
	case "exit": // PID 1 that ends is a panic too
		os.Exit(3)
	case "cmdline":
		line, _ := os.ReadFile("/proc/cmdline")
		fmt.Printf("cmdline=<%s>\n", bytes.TrimSpace(line))
		show("/proc/cpuinfo", "processor")
		show("/proc/meminfo", "MemTotal")
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	case "clock": // what it reads, again and again
		for {
			source, _ := os.ReadFile("/sys/devices/system/clocksource/clocksource0/current_clocksource")
			var uptime unix.Timespec
			_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &uptime)
			fmt.Printf("clock %d %d %s\n", uptime.Nano(), time.Now().UnixNano(), bytes.TrimSpace(source))
			time.Sleep(20 * time.Millisecond)
		}
	case "flood":
		for i := 0; ; i++ {
			fmt.Printf("flood line %d %s\n", i, strings.Repeat("x", 100))
		}
	case "tail": // much text, and the end of it at once before the end
		for i := 1; i <= 2000; i++ {
			fmt.Printf("tail line %d\n", i)
		}
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	case "ls":
		for _, dir := range []string{"/sys/bus/virtio/devices", "/sys/bus/acpi/devices", "/sys/bus/platform/devices", "/sys/kernel/reboot"} {
			entries, _ := os.ReadDir(dir)
			for _, e := range entries {
				text, _ := os.ReadFile(dir + "/" + e.Name())
				id, _ := os.ReadFile(dir + "/" + e.Name() + "/device")
				fmt.Println(dir, e.Name(), strings.TrimSpace(string(text)), strings.TrimSpace(string(id)))
			}
		}
		show("/proc/interrupts", "")
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	}
	for {
		time.Sleep(time.Hour)
	}
}

func show(path, prefix string) {
	text, _ := os.ReadFile(path)
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, prefix) {
			fmt.Print(line)
		}
	}
}

func load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", 0)
}
