package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// kvmTime bounds the finding out whether KVM works.
	kvmTime = 5 * time.Second
	// kvmMemory is the memory of the guests that find it out, in bytes.
	kvmMemory = 256 << 20
	// kvmConsole bounds what is kept of their consoles, in bytes.
	kvmConsole = 64 << 10
)

// A Probe finds out whether KVM runs guests on this host, once: by a guest of a few instructions, and then by a kernel's own
// start, as far as it comes without a ramdisk. No enclave is risked. What comes out is remembered for the host, its
// kernel and the QEMU.
type Probe struct {
	// Binary is the path of qemu-system-x86_64.
	Binary string
	// Kernel is the path of a kernel that is known to be good. Empty: Fallback takes its place, and what comes out is
	// remembered for that one alone, since it may itself be what does not work.
	Kernel   string
	Fallback *os.File
}

// probing lets one goroutine probe at a time: the others find what comes out.
var probing sync.Mutex

// outcome returns what is remembered, or else finds it out, and whether it is sure. Who demands KVM has it tried again where it
// did not work.
func (p Probe) outcome(ctx context.Context, a Accel, say func(string)) (found Outcome, sure bool, err error) {
	kernel, err := p.open()
	if err != nil {
		return Outcome{}, false, err
	}
	defer kernel.Close()
	kept, err := p.file(kernel)
	if err != nil {
		return Outcome{}, false, err
	}
	settled := func() bool {
		var known bool
		found, known = kept.load()
		return known && (found.Works || a != KVM)
	}
	if settled() {
		return found, true, nil
	}
	probing.Lock()
	defer probing.Unlock()
	if settled() {
		return found, true, nil
	}
	say(fmt.Sprintf("finding out whether KVM works here, which takes %v at most", kvmTime))
	found, sure = p.run(ctx, kernel)
	if ctx.Err() != nil {
		return Outcome{}, false, ctx.Err()
	}
	then := "using TCG this time"
	if sure {
		kept.save(found)
		then = "using TCG from now on"
	}
	if !found.Works && a != KVM {
		say("KVM does not work here (" + found.Why + "); " + then)
	}
	return found, sure, nil
}

// open opens the kernel to start.
func (p Probe) open() (*os.File, error) {
	if p.Kernel != "" {
		return os.Open(p.Kernel)
	}
	if p.Fallback == nil {
		return nil, errors.New("cannot find out whether KVM works: no kernel given")
	}
	return dup(p.Fallback)
}

// run finds out whether KVM works, and whether that is sure: a host too busy to run the guests proves nothing.
func (p Probe) run(ctx context.Context, kernel *os.File) (found Outcome, sure bool) {
	ctx, cancel := context.WithTimeout(ctx, kvmTime)
	defer cancel()
	own, err := memfdOf("nesim-kvm-guest", kvmGuest())
	if err != nil {
		return Outcome{Why: err.Error()}, false
	}
	defer own.Close()
	for _, guest := range []struct {
		what    string
		kernel  *os.File
		cmdline string
		says    string
	}{
		{"a test guest", own, "", kvmGuestText},
		{"a kernel", kernel, "console=ttyS0 panic=-1 reboot=k", "Linux version "},
	} {
		why, sure := p.try(ctx, guest.kernel, guest.cmdline, guest.says)
		if why != "" {
			return Outcome{Why: guest.what + " did not run: " + why}, sure
		}
	}
	return Outcome{Works: true}, true
}

// try runs a guest that ends by itself and returns why KVM did not run it, or "".
func (p Probe) try(ctx context.Context, kernel *os.File, cmdline, says string) (why string, sure bool) {
	console := &prefix{}
	cfg := Config{
		Name: "nesim-kvm-probe", Binary: p.Binary, CPUs: 1, MemoryBytes: kvmMemory, Kernel: kernel, Cmdline: cmdline, Console: console,
	}
	began := time.Now()
	r, err := launch(ctx, &cfg, KVM, ACPI)
	if err != nil {
		return err.Error(), blamesKVM(err.Error())
	}
	exit := r.watch(nil, ctx.Done())
	switch said := console.has(says); {
	case exit.Reason == Stopped:
		// Under a load the guest may have had no processor: then a slow start says nothing of KVM.
		used := r.proc.State().UserTime() + r.proc.State().SystemTime()
		return fmt.Sprintf("it was not done within %v", kvmTime), used > time.Since(began)/2
	case exit.Reason == InternalError:
		return exit.Detail, blamesKVM(exit.Detail)
	case exit.Reason == Killed:
		return exit.String(), false
	case !said:
		return "it crashed before it said a word (" + exit.String() + ")", true
	}
	return "", true
}

// prefix is a writer that keeps the first bytes.
type prefix struct {
	mu  sync.Mutex
	buf []byte
}

func (p *prefix) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.buf = append(p.buf, b[:min(len(b), kvmConsole-len(p.buf))]...)
	return len(b), nil
}

func (p *prefix) has(text string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return bytes.Contains(p.buf, []byte(text))
}

// memfdOf returns a file without a name that holds content.
func memfdOf(name string, content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := io.Copy(f, bytes.NewReader(content)); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
