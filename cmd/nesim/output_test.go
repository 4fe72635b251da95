package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// onTerminal runs a nesim command that has a terminal for its output, and returns what it shows.
func (u *user) onTerminal(env []string, args ...string) string {
	u.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(u, err)
	defer keyboard.Close()
	var number, unlock int
	number, err = unix.IoctlGetInt(int(keyboard.Fd()), unix.TIOCGPTN)
	require.NoError(u, err)
	require.NoError(u, unix.IoctlSetPointerInt(int(keyboard.Fd()), unix.TIOCSPTLCK, unlock))
	screen, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(u, err)
	cmd := u.command(u.Context(), args...)
	cmd.Env = append(append(cmd.Env, "TERM=xterm", "NO_COLOR="), env...)
	cmd.Stdout, cmd.Stderr = screen, screen
	require.NoError(u, cmd.Start())
	screen.Close()
	var shown bytes.Buffer
	_, err = io.Copy(&shown, keyboard)
	require.ErrorIs(u, err, unix.EIO) // the end of a terminal that nobody has open
	require.NoError(u, cmd.Wait())
	return strings.ReplaceAll(shown.String(), "\r\n", "\n")
}

func TestTerminalsGetTablesAndColoursAndNobodyElseDoes(t *testing.T) {
	u := newUser(t)
	describe := []string{"describe-eif", "--eif-path", u.image("p384.eif"), "--json=false"}
	piped, _, _ := u.run("", describe...)
	require.True(t, strings.HasPrefix(piped, "{\n"))

	describe[2] = u.image("two.eif")
	shown := u.onTerminal(nil, describe...)
	require.Contains(t, shown, "\x1b[32mright\x1b[0m")
	require.NotContains(t, shown, "{")
	for _, env := range []string{"NO_COLOR=1", "TERM=dumb"} {
		plain := u.onTerminal([]string{env}, describe...)
		require.Contains(t, plain, "CRC  right\n")
		require.NotContains(t, plain, "\x1b")
	}
	asked := u.onTerminal(nil, append(describe, "--json")...)
	require.Equal(t, u.must(describe...), asked)
	require.Equal(t, "No enclave is running.\n", u.onTerminal(nil, "describe-enclaves"))
}

func TestColumnsAlignWhateverTheirColour(t *testing.T) {
	var out bytes.Buffer
	p := &printer{w: &out, colours: true}
	p.table([]string{"NAME", "STATE"}, [][]cell{{{text: "a"}, {"up", green}}, {{"a name", red}, {text: "down"}}})
	require.Equal(t, "\x1b[1mNAME\x1b[0m    \x1b[1mSTATE\x1b[0m\n"+
		"a       \x1b[32mup\x1b[0m\n"+
		"\x1b[31ma name\x1b[0m  down\n", out.String())
}

func TestNothingFromAnImageSteersTheTerminal(t *testing.T) {
	require.Equal(t, "a·[31mb·", printable("a\x1b[31mb\u009b"))
	require.Equal(t, "one; two words·", oneLine(errors.New("one\n\n\ttwo words\x07\r\n")))
}

func TestTheDoctorLooksAtEverything(t *testing.T) {
	u := newUser(t)
	text := u.must("doctor")
	for _, check := range []string{"QEMU", "vhost-user-vsock-device", "vhost-user-test-device", "vfio-user-pci", "KVM", "enclave kernel",
		"kernel modules", "vsock", "open files", "locked memory", "socket folder", "daemon", "memory", "temporary files", "shared memory"} {
		require.Regexp(t, `(?m)^(ok|warn)\s+`+check+`\s`, text)
	}
	require.True(t, strings.HasPrefix(u.must("doctor", "--json"), "[\n"))

	t.Setenv("NESIM_QEMU", "/nowhere/qemu")
	text, told, err := u.run("", "doctor")
	require.Error(t, err)
	require.Regexp(t, `(?m)^fail\s+QEMU\s+.*/nowhere/qemu`, text)
	require.Contains(t, told, "nesim: 1 check failed")
}
