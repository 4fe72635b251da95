package primary

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/nesim/nesim/qemu"
)

// settleTime is how long a QEMU that has closed its ports may take to end.
const settleTime = 2 * time.Second

// lastLines is how much of the kernel's messages an error quotes.
const lastLines = 6

// Run boots a primary VM, runs its command and returns that one's exit code, as a shell tells it; an error where it
// was not run. When Run returns, nothing of the VM is left. It is ended when ctx ends.
func Run(ctx context.Context, cfg Config) (code int, err error) {
	if err := cfg.setDefaults(); err != nil {
		return 0, err
	}
	if err := cfg.checkQEMU(ctx); err != nil {
		return 0, err
	}
	initramfs, err := cfg.buildInitramfs(ctx)
	if err != nil {
		return 0, err
	}
	defer initramfs.Close()
	accel, err := cfg.Accel.Choose(ctx, qemu.Probe{Binary: cfg.QEMU.Path, Kernel: cfg.Kernel.Image}, cfg.Say)
	if err != nil {
		return 0, err
	}
	v := &vm{cfg: &cfg}
	return v.run(ctx, initramfs, accel)
}

// checkQEMU finds out whether this QEMU can attach the device.
func (c *Config) checkQEMU(ctx context.Context) error {
	const device = "vfio-user-pci"
	devices, err := c.QEMU.Devices(ctx)
	if err != nil {
		return err
	}
	if !devices[device] {
		return fmt.Errorf("%s (QEMU %v) has no %s: a primary VM needs a QEMU >= 10.1 built with it; `make deps` fetches one",
			c.QEMU.Path, c.QEMU.Version, device)
	}
	return nil
}

// vm is one start of QEMU.
type vm struct {
	cfg     *Config
	process *process
	console *tail
	ports   []*net.UnixConn // our ends, in the order of the names in ports
	outputs [2]*output      // of standard output and error
	copies  sync.WaitGroup
	link    *link // nil where there is no vsock device
}

// run runs the command under one accelerator.
func (v *vm) run(ctx context.Context, initramfs *os.File, accel qemu.Accel) (code int, err error) {
	defer v.close()
	if err := v.start(ctx, initramfs, accel); err != nil {
		return 0, err
	}
	return v.wait(ctx)
}

// start starts QEMU and what copies from its ports. close must follow, also after an error.
func (v *vm) start(ctx context.Context, initramfs *os.File, accel qemu.Accel) error {
	var files []*os.File // QEMU's
	defer func() {
		for _, f := range files {
			if f != initramfs {
				f.Close()
			}
		}
	}()
	for range ports {
		ours, theirs, err := newPort()
		if err != nil {
			return err
		}
		v.ports, files = append(v.ports, ours), append(files, theirs)
	}
	files = append(files, initramfs)
	if v.cfg.Vsock != nil {
		vsock, err := v.cfg.Vsock(ctx)
		if err != nil {
			return err
		}
		files = append(files, vsock)
		if v.link, err = watch(vsock, func() { v.ports[3].Close() }); err != nil {
			return err
		}
	}
	v.console = &tail{next: v.cfg.KernelLog}
	var err error
	if v.process, err = startProcess(v.cfg.QEMU.Path, v.cfg.arguments(accel), files, v.console); err != nil {
		return err
	}
	for i, to := range []io.Writer{v.cfg.Stdout, v.cfg.Stderr} {
		o, port := newOutput(to), v.ports[1+i]
		v.outputs[i] = o
		v.copies.Go(func() { o.copy(port) })
	}
	return nil
}

// feed starts to copy to the command's standard input.
func (v *vm) feed() {
	stdin := v.ports[0]
	if v.cfg.Stdin == nil {
		_ = stdin.CloseWrite()
		return
	}
	go func() { // may wait in Read for ever
		_, _ = io.Copy(stdin, v.cfg.Stdin)
		_ = stdin.CloseWrite()
	}()
}

// wait waits until the VM is ready, for the command's end, and for all of its output.
func (v *vm) wait(ctx context.Context) (code int, err error) {
	defer context.AfterFunc(ctx, v.process.Kill)()
	reports := newReports(v.ports[3])
	report, err := reports.next()
	if err != nil {
		v.settle()
		if line := v.kvmFailure(); line != "" {
			return 0, fmt.Errorf("KVM does not run the primary VM (%s): choose --accel tcg", line)
		}
		return 0, v.whyEnded(ctx, "the primary VM did not come up")
	}
	if report.Ready {
		v.feed()
		if report, err = reports.next(); err != nil {
			v.settle()
			return 0, v.whyEnded(ctx, "the primary VM ended before its command did")
		}
	}
	if report.Error != "" {
		return 0, fmt.Errorf("the primary VM is not ready: %s", report.Error)
	}
	v.outputs[0].await(report.Stdout)
	v.outputs[1].await(report.Stderr)
	return report.Exit, errors.Join(v.outputs[0].failure(), v.outputs[1].failure())
}

// kvmFailure is the line in which QEMU told that KVM cannot go on, or empty.
func (v *vm) kvmFailure() string {
	for _, line := range v.process.stderr.lines(tailSize) {
		if qemu.KVMFailed(line) {
			return line
		}
	}
	return ""
}

// whyEnded describes a VM that ended without its last report. QEMU has ended.
func (v *vm) whyEnded(ctx context.Context, what string) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if v.link != nil && v.link.lost.Load() {
		return errors.New("the daemon has ended, and with it the primary VM's devices")
	}
	what += " (QEMU: " + v.process.ending() + ")"
	lines := v.console.lines(tailSize)
	for _, line := range lines {
		if _, panicked, ok := strings.Cut(line, "Kernel panic - not syncing: "); ok {
			return errors.New(what + "; its kernel panicked: " + panicked)
		}
	}
	if len(lines) > 0 {
		what += "; its kernel's last lines: " + strings.Join(lines[max(0, len(lines)-lastLines):], " | ")
	}
	return errors.New(what)
}

// settle ends QEMU, which may be about to end by itself and tell why.
func (v *vm) settle() {
	if v.link == nil || !v.link.lost.Load() {
		select {
		case <-v.process.Done():
		case <-time.After(settleTime):
		}
	}
	v.process.end()
}

// close ends QEMU and the copying.
func (v *vm) close() {
	if v.link != nil {
		v.link.close()
	}
	if v.process != nil {
		v.process.end()
	}
	for _, port := range v.ports {
		port.Close()
	}
	v.copies.Wait()
}
