package qemu

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// option gives the values of every occurrence of a QEMU option.
func option(args []string, name string) []string {
	var values []string
	for i := range len(args) - 1 {
		if args[i] == name {
			values = append(values, args[i+1])
		}
	}
	return values
}

func TestArguments(t *testing.T) {
	plain := Config{Name: "e", CPUs: 2, MemoryBytes: 256 << 20, Cmdline: "console=ttyS0 reboot=k"}
	with := func(change func(*Config)) Config {
		c := plain
		change(&c)
		return c
	}
	tests := []struct {
		what   string
		cfg    Config
		accel  Accel
		option string
		want   []string
	}{
		{"memory is shared, so that vhost-user back ends can map it", plain, TCG,
			"-object", []string{"memory-backend-memfd,id=mem,share=on,size=256M"}},
		{"memory size", plain, TCG, "-m", []string{"256"}},
		{"vCPUs", plain, TCG, "-smp", []string{"2"}},
		{"TCG", plain, TCG, "-accel", []string{"tcg,tb-size=24"}},
		{"TCG on a crowded host", Config{SingleThread: true}, TCG, "-accel", []string{"tcg,tb-size=24,thread=single"}},
		{"KVM", plain, KVM, "-accel", []string{"kvm"}},
		{"KVM's CPU is the host's", plain, KVM, "-cpu", []string{"host"}},
		{"KVM leaves the command line alone", plain, KVM, "-append", []string{"console=ttyS0 reboot=k"}},
		{"an empty command line", with(func(c *Config) { c.Cmdline = "" }), KVM, "-append", []string{""}},
		{"commas in the command line are themselves",
			with(func(c *Config) { c.Cmdline = "cpus=1,2 x=,," }), KVM, "-append", []string{"cpus=1,2 x=,,"}},
		{"commas in the name are doubled",
			with(func(c *Config) { c.Name = "a,debug-threads=off" }), KVM,
			"-name", []string{"guest=a,,debug-threads=off,debug-threads=on"}},
		{"no initrd", plain, KVM, "-initrd", nil},
		{"initrd", with(func(c *Config) { c.Initrd = os.Stdin }), KVM, "-initrd", []string{"/dev/fd/5"}},
		{"kernel", plain, KVM, "-kernel", []string{"/dev/fd/4"}},
		{"firmware that an ELF kernel needs", with(func(c *Config) { c.Kernel = elfFile(t) }), KVM, "-bios", []string{"qboot.rom"}},
		{"and others do not", plain, KVM, "-bios", nil},
		{"no virtio devices", plain, KVM, "-device", []string{"i8042", "pvpanic"}},
		{"vsock, NSM", with(func(c *Config) { c.VsockSocket, c.NSMSocket = "/v", "/n" }), KVM, "-device", []string{"i8042", "pvpanic",
			"vhost-user-vsock-device,chardev=vsock", "vhost-user-test-device,virtio-id=33,num_vqs=1,vq_size=64,chardev=nsm"}},
		{"socket paths with commas", with(func(c *Config) { c.VsockSocket, c.NSMSocket = "/v,1", "/n,2" }), KVM, "-chardev", []string{
			"socket,id=qmp,fd=3,server=on,wait=off", "stdio,id=console,signal=off",
			"socket,id=vsock,path=/v,,1", "socket,id=nsm,path=/n,,2"}},
		{"kernel vhost", with(func(c *Config) { c.VhostVsockCID = 4294967294 }), KVM, "-device",
			[]string{"i8042", "pvpanic", "vhost-vsock-device,guest-cid=4294967294"}},
	}
	for _, test := range tests {
		t.Run(test.what, func(t *testing.T) {
			require.Equal(t, test.want, option(arguments(&test.cfg, test.accel), test.option))
		})
	}
	appended := option(arguments(&plain, TCG), "-append")
	require.Len(t, appended, 1)
	require.Regexp(t, "^console=ttyS0 reboot=k tsc_early_khz=[0-9]+ tsc=reliable no_timer_check lpj=[0-9]+$", appended[0], "TCG appends to it")
	require.Subset(t, arguments(&plain, TCG), []string{"-no-user-config", "-nodefaults", "-no-reboot", "-S"})
	require.True(t, slices.Contains(option(arguments(&plain, TCG), "-global"), "virtio-mmio.force-legacy=false"))
}

func TestConfigIsChecked(t *testing.T) {
	good := Config{Binary: "qemu", CPUs: 1, MemoryBytes: 64 << 20, Kernel: os.Stdin}
	require.NoError(t, good.check())
	tests := []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.Binary = "" }, "no QEMU binary"},
		{func(c *Config) { c.CPUs = 0 }, "0 vCPUs"},
		{func(c *Config) { c.CPUs = 289 }, "289 vCPUs"},
		{func(c *Config) { c.MemoryBytes = 0 }, "whole number of MiB"},
		{func(c *Config) { c.MemoryBytes++ }, "whole number of MiB"},
		{func(c *Config) { c.MemoryBytes = 1 << 63 }, "more than"},
		{func(c *Config) { c.Kernel = nil }, "no kernel"},
		{func(c *Config) { c.Cmdline = strings.Repeat("x", 2048) }, "command line of 2048 bytes"},
		{func(c *Config) { c.Cmdline = "a\x00b" }, "kernel command line has a NUL"},
		{func(c *Config) { c.Name = "\x00" }, "name has a NUL"},
		{func(c *Config) { c.VsockSocket = "/" + strings.Repeat("x", 107) }, "longer than 107"},
		{func(c *Config) { c.VsockSocket, c.VhostVsockCID = "/v", 4 }, "two vsock devices"},
		{func(c *Config) { c.VhostVsockCID = 2 }, "CID 2"},
	}
	for _, test := range tests {
		c := good
		test.change(&c)
		require.ErrorContains(t, c.check(), test.want)
	}
}

// elfFile is a file that begins as an ELF kernel does.
func elfFile(t *testing.T) *os.File {
	f, err := os.CreateTemp(t.TempDir(), "vmlinux")
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	_, err = f.WriteString("\x7fELF")
	require.NoError(t, err)
	return f
}
