package qemu

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/internal/child"
)

// A process is one QEMU, with the end of what it says.
type process struct {
	*child.Process
	stderr *tail
}

// startProcess starts binary; its standard output goes to stdout, files become descriptors 3 and up.
func startProcess(binary string, args []string, files []*os.File, stdout io.Writer) (*process, error) {
	stderr := &tail{}
	started, err := child.Start(binary, args, files, stdout, stderr)
	if err != nil {
		return nil, fmt.Errorf("cannot start QEMU: %w", err)
	}
	return &process{started, stderr}, nil
}

// ending is how a process that is done ended: by which signal (0: none), and in words.
func (p *process) ending() (signal syscall.Signal, words string) {
	status, ok := p.State().Sys().(syscall.WaitStatus)
	if ok && status.Signaled() {
		sig := status.Signal()
		return sig, fmt.Sprintf("%s (%s)", unix.SignalName(sig), sig)
	}
	words = p.State().String()
	if line := p.stderr.complaint(); line != "" {
		words += ": " + line
	}
	return 0, words
}

const (
	// tailSize bounds what is kept of QEMU's own messages, in bytes.
	tailSize = 8 << 10
	// maxLine bounds one line of QEMU's or the guest's in a message of ours, in bytes.
	maxLine = 256
	// maxKVMData is how many lines may stand between KVM's failure and its kind: kvm_run has room for 16 values.
	maxKVMData = 17
)

// tail is a writer that keeps the last tailSize bytes.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b[max(0, len(b)-tailSize):]...)
	if over := len(t.buf) - tailSize; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(b), nil
}

// complaint is the line that says what went wrong: KVM's failure with the line that names its kind, which
// is the next but for data in numbers; else the last line that is no warning. Empty when QEMU was silent.
func (t *tail) complaint() string {
	t.mu.Lock()
	lines := strings.Split(strings.TrimSpace(string(t.buf)), "\n")
	t.mu.Unlock()
	last := ""
	for i, line := range lines {
		if strings.Contains(line, "KVM internal error") {
			return oneLine(line + kind(lines[i+1:]))
		}
		if strings.Contains(line, "kvm run failed") {
			return oneLine(line)
		}
		if strings.TrimSpace(line) != "" && (last == "" || !strings.Contains(line, "warning: ")) {
			last = line
		}
	}
	if program, message, ok := strings.Cut(last, ": "); ok && strings.Contains(program, "qemu-system") {
		last = message
	}
	return oneLine(last)
}

// kind is the line that names the kind of a KVM internal error, after the data that KVM gave, before the registers
// (kvm_handle_internal_error in QEMU's accel/kvm/kvm-all.c), as more of a sentence.
func kind(lines []string) string {
	for _, line := range lines[:min(len(lines), maxKVMData)] {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "extra data[") {
			if strings.Contains(line, "=") {
				break // the registers
			}
			return ", " + line
		}
	}
	return ""
}

// oneLine makes foreign text fit for a message: printable, short, one line.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.TrimSpace(s))
	return strings.ToValidUTF8(s[:min(len(s), maxLine)], "")
}
