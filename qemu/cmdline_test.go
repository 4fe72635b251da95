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
		{"a reboot by the BIOS, which would start the kernel again, becomes one by the keyboard controller",
			with(func(c *Config) { c.Cmdline = "reboot=k reboot=w,b -- reboot=k" }), KVM, "-append", []string{"reboot=k reboot=w,b reboot=k -- reboot=k"}},
		{"but not where another way is chosen",
			with(func(c *Config) { c.Cmdline = "reboot=b reboot=t,w" }), KVM, "-append", []string{"reboot=b reboot=t,w"}},
		{"commas in the command line are themselves",
			with(func(c *Config) { c.Cmdline = "cpus=1,2 x=,," }), KVM, "-append", []string{"cpus=1,2 x=,,"}},
		{"commas in the name are doubled",
			with(func(c *Config) { c.Name = "a,debug-threads=off" }), KVM,
			"-name", []string{"guest=a,,debug-threads=off,debug-threads=on"}},
		{"no initrd", plain, KVM, "-initrd", nil},
		{"initrd", with(func(c *Config) { c.Initrd = os.Stdin }), KVM, "-initrd", []string{"/dev/fd/5"}},
		{"kernel", plain, KVM, "-kernel", []string{"/dev/fd/4"}},
		{"firmware that keeps its tables away from the ramdisk", plain, KVM, "-bios", []string{"qboot.rom"}},
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
			require.Equal(t, test.want, option(arguments(&test.cfg, test.accel, ACPI), test.option))
		})
	}
	appended := option(arguments(&plain, TCG, ACPI), "-append")
	require.Len(t, appended, 1)
	require.Regexp(t, "^console=ttyS0 reboot=k tsc_early_khz=[0-9]+ tsc=reliable no_timer_check lpj=[0-9]+$", appended[0], "TCG appends to it")
	require.Subset(t, arguments(&plain, TCG, ACPI), []string{"-no-user-config", "-nodefaults", "-no-reboot", "-S"})
	require.True(t, slices.Contains(option(arguments(&plain, TCG, ACPI), "-global"), "virtio-mmio.force-legacy=false"))
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

// The nitro machine is AWS's: neither ACPI nor PCIe, a timer and an interrupt controller of the PC, devices on the command line.
func TestTheNitroMachine(t *testing.T) {
	cfg := Config{CPUs: 2, MemoryBytes: 256 << 20, Cmdline: "console=ttyS0 reboot=k -- now", VsockSocket: "/v", NSMSocket: "/n"}
	args := arguments(&cfg, KVM, Nitro)
	require.Equal(t, []string{"microvm,memory-backend=mem,acpi=off,pcie=off,pit=on,pic=on,auto-kernel-cmdline=off"}, option(args, "-M"))
	require.Equal(t, []string{"i8042", "pvpanic", "vhost-user-vsock-device,chardev=vsock,bus=virtio-mmio-bus.0",
		"vhost-user-test-device,virtio-id=33,num_vqs=1,vq_size=64,chardev=nsm,bus=virtio-mmio-bus.1"}, option(args, "-device"))
	require.Equal(t, []string{"console=ttyS0 reboot=k virtio_mmio.device=512@0xfeb00000:5 virtio_mmio.device=512@0xfeb00200:6 -- now"},
		option(args, "-append"))
	require.Equal(t, []string{"console=ttyS0 reboot=k -- now"}, option(arguments(&cfg, KVM, ACPI), "-append"))
}

func TestWordsAreAddedWhereTheKernelReadsThem(t *testing.T) {
	for line, want := range map[string]string{
		"":                   "w=1",
		"a":                  "a w=1",
		"a  b=c ":            "a  b=c w=1",
		"a -- b":             "a w=1 -- b",
		"-- b":               "w=1 -- b",
		"a --":               "a w=1 --",
		`a "--" b`:           `a w=1 "--" b`,
		"a --b c--":          "a --b c-- w=1",
		`a="b -- c" d`:       `a="b -- c" d w=1`,
		`a="b -- c" -- d`:    `a="b -- c" w=1 -- d`,
		`a="never closed --`: `a="never closed --" w=1`,
		"a\t--\nb":           "a w=1 --\nb",
	} {
		require.Equal(t, want, addWords(line, "w=1"), "%q", line)
		require.Equal(t, line, addWords(line, ""))
	}
}

// What the machine adds may not push the image's own words past what the kernel reads.
func TestACommandLineThatIsTooLongIsRefused(t *testing.T) {
	cfg := Config{VsockSocket: "/v"}
	added := len(kernelLine(&cfg, KVM, Nitro)) + 1 // and a space
	cfg.Cmdline = strings.Repeat("x", maxCmdline-1-added)
	require.NoError(t, checkKernelLine(&cfg, KVM, Nitro))
	cfg.Cmdline += "x"
	require.NoError(t, checkKernelLine(&cfg, KVM, ACPI))
	require.EqualError(t, checkKernelLine(&cfg, KVM, Nitro),
		"kernel command line of 2012 bytes, and 36 more for this machine's devices and clock: the kernel reads 2047")
	require.Error(t, checkKernelLine(&cfg, TCG, ACPI))
}

func TestParseMachineType(t *testing.T) {
	t.Setenv("NESIM_MACHINE", "")
	for in, want := range map[string]MachineType{"": AutoMachine, "auto": AutoMachine, "nitro": Nitro, "acpi": ACPI} {
		m, err := ParseMachineType(in)
		require.NoError(t, err)
		require.Equal(t, want, m)
	}
	t.Setenv("NESIM_MACHINE", "nitro")
	m, err := ParseMachineType("")
	require.NoError(t, err)
	require.Equal(t, Nitro, m)
	t.Setenv("NESIM_MACHINE", "q35")
	_, err = ParseMachineType("")
	require.EqualError(t, err, `NESIM_MACHINE "q35": choose auto, nitro or acpi`)
}
