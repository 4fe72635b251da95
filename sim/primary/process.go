package primary

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/nesim/nesim/internal/child"
	"github.com/nesim/nesim/qemu"
)

// process is a QEMU, with the end of what it says.
type process struct {
	*child.Process
	stderr   *tail
	watching sync.WaitGroup
}

// startProcess starts QEMU. One that KVM has failed is ended: it would stay, with its guest stopped.
func startProcess(binary string, args []string, files []*os.File, console io.Writer) (*process, error) {
	failed := make(chan struct{}, 1)
	stderr := &tail{next: writerFunc(func(b []byte) {
		if qemu.KVMFailed(string(b)) {
			select {
			case failed <- struct{}{}:
			default:
			}
		}
	})}
	started, err := child.Start(binary, args, files, console, stderr)
	if err != nil {
		return nil, fmt.Errorf("start QEMU: %w", err)
	}
	p := &process{Process: started, stderr: stderr}
	p.watching.Go(func() {
		select {
		case <-failed:
			p.Kill()
		case <-p.Done():
		}
	})
	return p, nil
}

// end kills QEMU and waits for its end.
func (p *process) end() {
	p.Kill()
	<-p.Done()
	p.watching.Wait()
}

// ending reports how QEMU ended, in one line.
func (p *process) ending() string {
	for _, line := range p.stderr.lines(8) {
		if !strings.Contains(line, "warning: ") {
			return p.State().String() + ": " + line
		}
	}
	return p.State().String()
}

type writerFunc func([]byte)

func (f writerFunc) Write(b []byte) (int, error) {
	f(b)
	return len(b), nil
}

// tailSize bounds what is kept of a text, in bytes.
const tailSize = 16 << 10

// tail is a writer that keeps the end of what it is given, and passes all on.
type tail struct {
	next io.Writer // or nil

	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	t.buf = append(t.buf, b...)
	if over := len(t.buf) - tailSize; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	t.mu.Unlock()
	if t.next != nil {
		_, _ = t.next.Write(b)
	}
	return len(b), nil
}

// lines gives at most n of the last lines, without what a terminal would not show.
func (t *tail) lines(n int) (lines []string) {
	t.mu.Lock()
	text := string(t.buf)
	t.mu.Unlock()
	for line := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == '\n' || r == '\r' }) {
		line = strings.Map(func(r rune) rune {
			if r < ' ' || r > '~' {
				return -1
			}
			return r
		}, line)
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines[max(0, len(lines)-n):]
}
