package main

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/sim/primary"
)

// terminal gives the VM's command a terminal like ours: a shell always, another command if requested. Ours
// then passes every key on, ctrl-C too, until the returned function is called.
func terminal(cfg *primary.Config) (restore func()) {
	in, out := int(os.Stdin.Fd()), int(os.Stdout.Fd())
	was, err := unix.IoctlGetTermios(in, unix.TCGETS)
	if err != nil || cfg.Command != "" && !cfg.Terminal {
		return func() {}
	}
	cfg.Terminal, cfg.Term = true, os.Getenv("TERM")
	if size, err := unix.IoctlGetWinsize(out, unix.TIOCGWINSZ); err == nil {
		cfg.Rows, cfg.Columns = size.Row, size.Col
	}
	raw := *was
	makeRaw(&raw)
	_ = unix.IoctlSetTermios(in, unix.TCSETS, &raw)
	return func() { _ = unix.IoctlSetTermios(in, unix.TCSETS, was) }
}

// makeRaw is cfmakeraw of termios(3).
func makeRaw(t *unix.Termios) {
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	t.Cflag &^= unix.CSIZE | unix.PARENB
	t.Cflag |= unix.CS8
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
}
