// Program features uses, as a workload, what the kernel has to offer, and prints a line for each: its name and "ok", or
// what failed.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	for _, f := range []struct {
		name string
		use  func() error
	}{
		{"bridge", command("ip", "link", "add", "br0", "type", "bridge")},
		{"veth", command("ip", "link", "add", "v0", "type", "veth")},
		{"dummy", command("ip", "link", "add", "d0", "type", "dummy")},
		{"address", command("ip", "address", "add", "10.1.0.1/24", "dev", "d0")},
		{"link up", command("ip", "link", "set", "d0", "up")},
		{"route", command("ip", "route", "add", "10.2.0.0/16", "via", "10.1.0.2")},
		{"rule", command("ip", "rule", "add", "from", "10.9.0.0/16", "table", "100")},
		{"tap", openTAP},
		{"iptables nat", table(unix.AF_INET, unix.SOL_IP, "ip_tables", "nat")},
		{"iptables filter", table(unix.AF_INET, unix.SOL_IP, "ip_tables", "filter")},
		{"ip6tables nat", table(unix.AF_INET6, unix.SOL_IPV6, "ip6_tables", "nat")},
		{"overlay", overlay},
		{"loop", command("losetup", "-f")},
		{"squashfs", known("squashfs")},
		{"ext4", known("ext4")},
		{"fuse", known("fuse")},
		{"shared memory", func() error { return os.WriteFile("/dev/shm/a", []byte("a"), 0o600) }},
	} {
		if err := f.use(); err != nil {
			fmt.Printf("feature %s: %v\n", f.name, err)
			continue
		}
		fmt.Printf("feature %s: ok\n", f.name)
	}
	fmt.Printf("feature date: %d\n", time.Now().Unix())
	_, err := os.Stat("/dev/ptp0")
	fmt.Printf("feature ptp0: %v\n", err)
}

// command runs one of busybox's.
func command(args ...string) func() error {
	return func() error {
		if out, err := exec.Command("/busybox", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
}

func openTAP() error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	tap, err := unix.NewIfreq("tap0")
	if err != nil {
		return err
	}
	tap.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	return unix.IoctlIfreq(fd, unix.TUNSETIFF, tap)
}

// table asks for a table as iptables and ip6tables begin to: where the kernel knows no tables, they start the kernel's
// modprobe for their module, and ask again.
func table(family, level int, module, name string) func() error {
	return func() error {
		err := tableInfo(family, level, name)
		if !errors.Is(err, unix.ENOPROTOOPT) {
			return err
		}
		modprobe, err := os.ReadFile("/proc/sys/kernel/modprobe")
		if err != nil {
			return err
		}
		if out, err := exec.Command(strings.TrimSpace(string(modprobe)), module, "-q").CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", modprobe, err, out)
		}
		return tableInfo(family, level, name)
	}
}

// tableInfo is the socket option IPT_SO_GET_INFO, or IP6T_SO_GET_INFO, of a struct ipt_getinfo.
func tableInfo(family, level int, name string) error {
	fd, err := unix.Socket(family, unix.SOCK_RAW, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	const getInfo = 64
	var info [84]byte
	copy(info[:], name)
	size := uint32(len(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), getInfo,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func overlay() error {
	for _, dir := range []string{"/tmp/lower", "/tmp/upper", "/tmp/work", "/tmp/merged"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	return unix.Mount("overlay", "/tmp/merged", "overlay", 0, "lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work")
}

// known tells whether the kernel has a file system, which a mount of nothing asks it for.
func known(kind string) func() error {
	return func() error {
		err := unix.Mount("none", "/mnt", kind, 0, "")
		if errors.Is(err, unix.ENODEV) {
			return err
		}
		return nil
	}
}
