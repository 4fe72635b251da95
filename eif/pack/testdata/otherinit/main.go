// Program otherinit is an init as AWS's is: it loads /nsm.ko if that exists, sends the heartbeat, makes /rootfs the root
// directory, mounts what AWS's init mounts, each cgroup controller of /proc/cgroups as of version 1 among it, and runs
// the workload. It ends at the first failure, and knows nothing of other modules.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	err := run()
	fmt.Println("other init:", err)
	unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

func run() error {
	if os.Getpid() != 1 || os.Args[0] != "/init" {
		return fmt.Errorf("process %d, %q, is no init", os.Getpid(), os.Args)
	}
	if err := unix.Mount("dev", "/dev", "devtmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /dev: %w", err)
	}
	if f, err := os.Open("/nsm.ko"); err == nil {
		if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil {
			return fmt.Errorf("insert nsm.ko: %w", err)
		}
	}
	if err := heartbeat(); err != nil {
		return fmt.Errorf("heartbeat: %w", err)
	}
	env, command := lines("/env"), lines("/cmd")
	if err := enter("/rootfs"); err != nil {
		return err
	}
	if err := mountAll(); err != nil {
		return err
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, os.Stdout, os.Stderr
	return fmt.Errorf("workload ended: %v", cmd.Run())
}

func heartbeat() error {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, &unix.SockaddrVM{CID: 3, Port: 9000}); err != nil {
		return err
	}
	if _, err := unix.Write(fd, []byte{0xb7}); err != nil {
		return err
	}
	if n, err := unix.Read(fd, make([]byte, 1)); n != 1 {
		return fmt.Errorf("no answer: %v", err)
	}
	return unix.Close(fd)
}

func lines(path string) []string {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

func enter(dir string) error {
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if err := unix.Chdir(dir); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return err
	}
	return unix.Chroot(".")
}

func mountAll() error {
	const flags = unix.MS_NODEV | unix.MS_NOSUID | unix.MS_NOEXEC
	for _, m := range [][3]string{
		{"dev", "/dev", "devtmpfs"}, {"proc", "/proc", "proc"}, {"tmpfs", "/run", "tmpfs"}, {"tmpfs", "/tmp", "tmpfs"},
		{"sysfs", "/sys", "sysfs"}, {"cgroup_root", "/sys/fs/cgroup", "tmpfs"},
	} {
		if err := unix.Mount(m[0], m[1], m[2], flags&^unix.MS_NODEV, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m[1], err)
		}
	}
	for _, line := range lines("/proc/cgroups")[1:] {
		f := strings.Fields(line)
		if f[3] == "0" {
			continue
		}
		dir := "/sys/fs/cgroup/" + f[0]
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(f[0], dir, "cgroup", flags, f[0]); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	return nil
}
