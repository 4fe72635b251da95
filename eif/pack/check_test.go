package pack

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// elfProgram makes an ELF program of a machine; interpreter, if any, is its dynamic linker. With far, its program headers
// and that name lie behind each other the other way round, as patchelf puts them.
func elfProgram(machine elf.Machine, interpreter string, far bool) []byte {
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: 1, Phoff: 64, Ehsize: 64, Phentsize: progSize, Phnum: 2}
	copy(h.Ident[:], elf.ELFMAG+"\x02\x01\x01")
	progs := []elf.Prog64{{Type: uint32(elf.PT_LOAD)}, {Type: uint32(elf.PT_NOTE)}}
	name := []byte(interpreter + "\x00")
	if interpreter != "" {
		progs[1] = elf.Prog64{Type: uint32(elf.PT_INTERP), Off: 64 + 2*progSize, Filesz: uint64(len(name))}
	}
	if far {
		h.Phoff, progs[1].Off = 64+uint64(len(name)), 64
	}
	var b bytes.Buffer
	put := func(v any) { _ = binary.Write(&b, binary.LittleEndian, v) }
	put(h)
	if far {
		put(name)
		put(progs)
	} else {
		put(progs)
		put(name)
	}
	return b.Bytes()
}

func static() []byte { return elfProgram(elf.EM_X86_64, "", false) }

func symlink(name, target string) Entry {
	return Entry{Name: name, Mode: fs.ModeSymlink | 0o777, Target: target}
}

// checked runs Check and returns what it notes.
func checked(t *testing.T, s Spec) ([]string, error) {
	t.Helper()
	var notes []string
	err := s.Check(t.Context(), func(line string) { notes = append(notes, line) })
	if err != nil {
		require.NotContains(t, err.Error(), "\n")
	}
	return notes, err
}

func TestAWorkloadThatCanNeverRunIsRefused(t *testing.T) {
	const linker = "/lib64/ld-linux-x86-64.so.2"
	script := func(line string) []Entry { return []Entry{file("app", 0o755, []byte(line))} }
	for _, c := range []struct {
		want    string
		command string
		files   []Entry
		change  func(*Application)
	}{
		{"workload /none: the image has no such file: check the command, and that the program is copied into the image", "/none", nil, nil},
		{"workload none: there is no such program in /sbin:/usr/sbin:/bin:/usr/bin: give its path", "none", nil, nil},
		{"workload none: there is no such program in /sbin:/usr/sbin:/bin:/usr/bin:/opt: give its path", "none", nil,
			func(a *Application) { a.Env = []string{"PATH=/opt"} }},
		{"workload app: there is no such program", "app", []Entry{file("bin/app", 0o644, static())}, nil},
		{"workload /bin: it is a directory, not a program", "/bin", []Entry{directory("bin")}, nil},
		{"workload /pipe: it is a named pipe, not a program", "/pipe", []Entry{{Name: "pipe", Mode: fs.ModeNamedPipe | 0o755}}, nil},
		{"workload /app: it is not executable: its mode is 0644; chmod 755 makes it so", "/app", []Entry{file("app", 0o644, static())}, nil},
		{"workload /app: it is not executable for user 7: its mode is 0700", "/app", []Entry{file("app", 0o700, static())},
			func(a *Application) { a.User = &User{UID: 7, GID: 7} }},
		{"workload /app: it is empty", "/app", script(""), nil},
		{`workload /app: it is neither an ELF program nor a script that begins with "#!"`, "/app", script("echo hi\n"), nil},
		{`workload /app: its "#!" names no interpreter`, "/app", script("#! \n"), nil},
		{`workload /app: its interpreter "/bin/sh": the image has no such file: add it to the image`, "/app", script("#! /bin/sh -e\n"), nil},
		{`workload /app: its interpreter "/bin/sh\r": the image has no such file: the script has DOS line ends`, "/app", script("#!/bin/sh\r\n"), nil},
		{"workload /app: its interpreter \"" + linker + "\": the image has no such file: link the program statically, or add the libraries", "/app",
			[]Entry{file("app", 0o755, elfProgram(elf.EM_X86_64, linker, false))}, nil},
		{"workload /app: its interpreter \"" + linker + "\": the image has no such file: link", "/app",
			[]Entry{file("app", 0o755, elfProgram(elf.EM_X86_64, linker, true))}, nil},
		{"workload /app: its interpreter \"/bin/sh\": its interpreter \"/ld\": the image has no such file", "/app",
			append(script("#!/bin/sh\n"), file("bin/sh", 0o755, elfProgram(elf.EM_X86_64, "/ld", false))), nil},
		{"its interpreters need interpreters without an end", "/app", script("#!/app\n"), nil},
		{"workload /app: it is a program for aarch64: enclaves here are x86_64, build it for linux/amd64", "/app",
			[]Entry{file("app", 0o755, elfProgram(elf.EM_AARCH64, "", false))}, nil},
		{"workload /app: it is cut off inside its ELF header", "/app", script(elf.ELFMAG), nil},
		{"workload /app: it is cut off inside its program headers", "/app", script(string(static()[:100])), nil},
		{"workload /app: it leads through more than 40 symbolic links", "/app", []Entry{symlink("app", "b"), symlink("b", "app")}, nil},
		{"workload /app: the image has no such file", "/app", []Entry{symlink("app", "/outside")}, nil},
		{"workload /app/x: the image has no such file", "/app/x", []Entry{file("app", 0o755, static())}, nil},
		{"workload /tmp/app: init mounts over that directory, and nothing that the image has there is left", "/tmp/app",
			[]Entry{file("tmp/app", 0o755, static())}, nil},
		{"workload /opt/app: init mounts over that directory", "/opt/app",
			[]Entry{file("run/app", 0o755, static()), symlink("opt", "run")}, nil},
		{"workload ./app: the image has no such file", "./app", []Entry{file("srv/app", 0o755, static())}, nil},
	} {
		app := Application{Files: c.files, Command: []string{c.command}}
		if c.change != nil {
			c.change(&app)
		}
		_, err := checked(t, Spec{Application: app})
		require.ErrorContains(t, err, c.want)
	}
}

func TestAWorkloadThatRunsIsLeftAlone(t *testing.T) {
	libc := []Entry{file("usr/lib/ld.so", 0o755, static()), symlink("lib", "usr/lib"), symlink("lib64", "/lib")}
	for command, app := range map[string]Application{
		"/app":      {Files: []Entry{file("app", 0o755, static())}},
		"app":       {Files: []Entry{file("usr/bin/app", 0o711, static())}},
		"../../app": {Files: []Entry{file("app", 0o755, static())}},
		"/a":        {Files: []Entry{file("a", 0o001, static())}},
		"./app":     {Files: []Entry{file("srv/app", 0o755, static())}, WorkDir: "/srv"},
		"/dyn":      {Files: append(libc, file("dyn", 0o755, elfProgram(elf.EM_X86_64, "/lib64/ld.so", true)))},
		"/bin/sh":   {Files: []Entry{file("usr/bin/busybox", 0o755, static()), {Name: "usr/bin/sh", LinkTo: "usr/bin/busybox"}, symlink("bin", "usr/bin")}},
		"/script":   {Files: []Entry{file("script", 0o755, []byte("#!\t/bin/sh\t-e")), file("bin/sh", 0o755, static())}},
		"/i386":     {Files: []Entry{file("i386", 0o755, append([]byte(elf.ELFMAG+"\x01\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x03\x00"), make([]byte, 44)...))}},
		"/mine":     {Files: []Entry{{Name: "mine", Mode: 0o070, GID: 5, Size: int64(len(static())), Open: reader(string(static()), func() {})}}, User: &User{UID: 1, GID: 2, Groups: []uint32{5}}},
	} {
		app.Command = []string{command}
		notes, err := checked(t, Spec{Application: app})
		require.NoError(t, err, command)
		require.Empty(t, notes, command)
	}
}

func TestAWorkloadThatAWSWouldNotFindIsNoted(t *testing.T) {
	app := Application{Files: []Entry{file("usr/local/bin/python", 0o755, static())}, Command: []string{"python"}, Env: []string{"PATH=/usr/local/bin:/bin"}}
	notes, err := checked(t, Spec{Application: app})
	require.NoError(t, err)
	require.Equal(t, []string{"python is found by the environment's PATH alone: AWS's init looks in /sbin:/usr/sbin:/bin:/usr/bin only, so name it /usr/local/bin/python"}, notes)

	init := filepath.Join(t.TempDir(), "init")
	require.NoError(t, os.WriteFile(init, static(), 0o600))
	_, err = checked(t, Spec{Application: app, Init: init})
	require.EqualError(t, err, "workload python: there is no such program in /sbin:/usr/sbin:/bin:/usr/bin: give its path")
}

func TestAnInitThatCanNeverRunIsRefused(t *testing.T) {
	init := filepath.Join(t.TempDir(), "init")
	spec := Spec{Init: init, Application: Application{Files: []Entry{file("app", 0o755, static()), file("lib/ld.so", 0o755, static())}, Command: []string{"/app"}}}
	for want, content := range map[string][]byte{
		`its interpreter "/lib/ld.so": the image has no such file: add it`:                       []byte("#!/lib/ld.so\n"),
		`its interpreter "/lib64/ld-linux-x86-64.so.2": the image has no such file: link the pr`: elfProgram(elf.EM_X86_64, "/lib64/ld-linux-x86-64.so.2", false),
		"it is a program for aarch64": elfProgram(elf.EM_AARCH64, "", false),
		"it is neither an ELF":        []byte("text"),
		"it is empty":                 {},
	} {
		require.NoError(t, os.WriteFile(init, content, 0o600))
		_, err := checked(t, spec)
		require.ErrorContains(t, err, "init "+init+": "+want)
	}
	for _, content := range [][]byte{static(), []byte("#!/rootfs/lib/ld.so\n")} {
		require.NoError(t, os.WriteFile(init, content, 0o600))
		_, err := checked(t, spec)
		require.NoError(t, err)
	}
}

// nitro-cli's linuxkit writes the directories after the image's files, and the kernel puts them in their place.
func TestWhatIsWhereInitMountsBecomesADirectory(t *testing.T) {
	spec := testSpec(t, Application{Command: []string{"/app"}, Files: []Entry{
		file("app", 0o755, static()), symlink("tmp", "var/tmp"), file("run", 0o644, []byte("x")), symlink("var", "none"),
		{Name: "proc", LinkTo: "app"}, directory("sys"),
	}})
	spec.Init = ""
	notes, err := checked(t, spec)
	require.NoError(t, err)
	require.Equal(t, []string{
		"/tmp is a symbolic link: it becomes a directory, as nitro-cli makes it, for init to mount on",
		"/run is a regular file: it becomes a directory, as nitro-cli makes it, for init to mount on",
		"/var is a symbolic link: it becomes a directory, as nitro-cli makes it, for init to mount on",
		"/proc is a regular file: it becomes a directory, as nitro-cli makes it, for init to mount on",
	}, notes)
	ramdisk, err := spec.Application.ramdisk()
	require.NoError(t, err)
	for _, name := range mountPoints {
		require.True(t, ramdisk["rootfs/"+name].Mode.IsDir(), name)
		require.Empty(t, ramdisk["rootfs/"+name].LinkTo)
	}
}

// FuzzProgram looks for the interpreter of an arbitrary program, and follows arbitrary links to it.
func FuzzProgram(f *testing.F) {
	f.Add(elfProgram(elf.EM_X86_64, "/ld", false), "app", "/app")
	f.Add(elfProgram(elf.EM_X86_64, "/ld", true), "../bin/../app", "./x/../app")
	f.Add([]byte("#!/app x\n"), "app", "app")
	f.Fuzz(func(t *testing.T, program []byte, target, command string) {
		e := file("app", 0o755, program)
		if name, err := interpreterOf(e); err == nil {
			require.NotContains(t, name, "\x00")
			require.LessOrEqual(t, len(name), maxPath)
		}
		app := Application{Files: []Entry{e, symlink("link", target), symlink("bin", "/")}, Command: []string{command}}
		_ = Spec{Application: app}.Check(t.Context(), func(line string) { require.NotContains(t, line, "\n") })
	})
}

// FuzzKernelConfig reads an arbitrary kernel configuration.
func FuzzKernelConfig(f *testing.F) {
	f.Add("#\n# Automatically generated file; DO NOT EDIT.\n# Linux/x86_64 4.14.177-104.253.amzn2.x86_64 Kernel Configuration\n#\n")
	f.Add("\n\n- / -")
	path := filepath.Join(f.TempDir(), "config")
	f.Fuzz(func(t *testing.T, text string) {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		var s Spec
		if s.DescribeKernel(path) == nil {
			require.NotEmpty(t, s.Metadata.Build.OperatingSystem)
			require.NotEmpty(t, s.Metadata.Build.KernelVersion)
			_, err := s.metadata()
			require.NoError(t, err)
		}
	})
}

// FuzzBlobs takes kernel, init, NSM driver and command line from a folder of arbitrary files.
func FuzzBlobs(f *testing.F) {
	f.Add("reboot=k quiet\n", static(), []byte("\x1f\x8b\x08"))
	f.Add(strings.Repeat("x", 3000), []byte("#!/x"), []byte(nil))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, cmdline string, init, nsm []byte) {
		for name, text := range map[string]string{"bzImage": "kernel", "cmdline": cmdline, "init": string(init), "nsm.ko": string(nsm)} {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
		}
		s := Spec{Application: app(), Output: filepath.Join(dir, "out.eif")}
		require.NoError(t, s.UseBlobs(dir))
		_ = s.Check(t.Context(), func(string) {})
		if _, err := Build(t.Context(), s); err != nil {
			require.NotContains(t, err.Error(), "\n")
			require.NoFileExists(t, s.Output)
			return
		}
		require.NoError(t, os.Remove(s.Output))
	})
}
