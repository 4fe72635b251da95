package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/sim/primary/plan"
)

// What the NE driver and the kernel offer.
const (
	neDevice = "/dev/nitro_enclaves"                           // NE_DEV_NAME of ne_ioctl_sample.c
	neCPUs   = "/sys/module/nitro_enclaves/parameters/ne_cpus" // ne_misc_dev.c
)

// prepare makes the VM ready for the command.
func prepare(p *plan.Plan) error {
	for _, step := range []func(*plan.Plan) error{mountAll, installTools, checkHugePages, loadModules, setCPUPool} {
		if err := step(p); err != nil {
			return err
		}
	}
	return nil
}

func mountAll(p *plan.Plan) error {
	for _, m := range []struct{ source, target, kind, data string }{
		{"proc", "/proc", "proc", ""},
		{"sysfs", "/sys", "sysfs", ""},
		{"devpts", "/dev/pts", "devpts", "ptmxmode=0666"},
		{"shm", "/dev/shm", "tmpfs", ""},
		{"hugetlbfs", "/dev/hugepages", "hugetlbfs", ""},
		{"tmpfs", "/run", "tmpfs", "mode=0755"},
		{"tmpfs", "/tmp", "tmpfs", ""},
	} {
		if err := mount(m.source, m.target, m.kind, m.data); err != nil {
			return err
		}
	}
	for link, target := range map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0", "/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2",
	} {
		if err := symlink(target, link); err != nil {
			return err
		}
	}
	return unix.Sethostname([]byte(p.Hostname))
}

func mount(source, target, kind, data string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(source, target, kind, unix.MS_NOSUID, data); err != nil && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("mount %s: %w", target, err)
	}
	return nil
}

// symlink makes a symbolic link where nothing has its name yet.
func symlink(target, name string) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if err := os.Symlink(target, name); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// installTools makes busybox's commands, and vsock, and puts them where scripts look for a shell if nobody else did.
func installTools(*plan.Plan) error {
	out, err := exec.Command(plan.Bin+"/busybox", "--install", "-s", plan.Bin).CombinedOutput()
	if err != nil {
		return fmt.Errorf("install busybox: %w: %s", err, strings.TrimSpace(string(out)))
	}
	if err := symlink(plan.Init, plan.Bin+"/vsock"); err != nil {
		return err
	}
	for _, dir := range []string{"/bin", "/sbin", "/usr/bin"} {
		if err := symlink(plan.Bin, dir); err != nil {
			return err
		}
	}
	return nil
}

// loadModules loads the modules from where modprobe finds them too, and checks that the NE driver has its device.
func loadModules(p *plan.Plan) error {
	var host unix.Utsname
	if err := unix.Uname(&host); err != nil {
		return err
	}
	if err := symlink(plan.Modules, "/lib/modules/"+unix.ByteSliceToString(host.Release[:])); err != nil {
		return err
	}
	for _, name := range p.Modules {
		if err := loadModule(filepath.Join(plan.Modules, name)); err != nil {
			return err
		}
	}
	if _, err := os.Stat(neDevice); err != nil {
		return fmt.Errorf("the NE driver made no %s: %w", neDevice, err)
	}
	return nil
}

func loadModule(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open module %s: %w", path, err)
	}
	defer unix.Close(fd)
	flags := 0
	if !strings.HasSuffix(path, ".ko") {
		flags = unix.MODULE_INIT_COMPRESSED_FILE
	}
	if err := unix.FinitModule(fd, "", flags); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load module %s: %w", path, err)
	}
	return nil
}

// checkHugePages checks that the kernel has set aside all the memory that it was told to.
func checkHugePages(p *plan.Plan) error {
	for _, want := range []struct {
		pages  int
		folder string // Documentation/admin-guide/mm/hugetlbpage.rst
	}{{p.HugeMiB / 2, "hugepages-2048kB"}, {p.HugeGiB, "hugepages-1048576kB"}} {
		got, err := os.ReadFile("/sys/kernel/mm/hugepages/" + want.folder + "/nr_hugepages")
		if want.pages == 0 && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if n := strings.TrimSpace(string(got)); n != strconv.Itoa(want.pages) {
			return fmt.Errorf("only %s of %d huge pages (%s) could be set aside: give the primary VM more memory", n, want.pages, want.folder)
		}
	}
	return nil
}

// setCPUPool gives the NE driver the CPUs for enclaves as nitro-enclaves-allocator does. The driver takes them offline.
func setCPUPool(p *plan.Plan) error {
	if p.CPUPool == "" {
		return nil
	}
	if err := os.WriteFile(neCPUs, []byte(p.CPUPool), 0); err != nil {
		return fmt.Errorf("the NE driver refuses the CPU pool %s (%w): it wants whole cores, and not CPU 0's", p.CPUPool, errors.Unwrap(err))
	}
	return nil
}
