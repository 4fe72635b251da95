package primary

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/sim/primary/plan"
)

// newPort makes a socket pair: our end and QEMU's.
func newPort() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "port"), os.NewFile(uintptr(fds[1]), "port")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	return conn.(*net.UnixConn), theirs, nil
}

// output passes on what comes from a port, and counts it.
type output struct {
	to   io.Writer
	done chan struct{} // closed when no more comes

	mu      sync.Mutex
	changed chan struct{} // closed, and replaced, when n grows
	n       int64
	err     error // of the writer
}

func newOutput(to io.Writer) *output {
	return &output{to: to, done: make(chan struct{}), changed: make(chan struct{})}
}

// copy runs until the port ends. What its writer does not take is dropped: the VM goes on.
func (o *output) copy(port io.Reader) {
	defer close(o.done)
	buf := make([]byte, 32<<10)
	for {
		n, err := port.Read(buf)
		if n > 0 {
			o.write(buf[:n])
		}
		if err != nil {
			return
		}
	}
}

func (o *output) write(b []byte) {
	var err error
	if o.err == nil {
		_, err = o.to.Write(b)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		o.err = err
	}
	o.n += int64(len(b))
	close(o.changed)
	o.changed = make(chan struct{})
}

// await waits until n bytes have come, or no more will.
func (o *output) await(n int64) {
	for {
		o.mu.Lock()
		got, changed := o.n, o.changed
		o.mu.Unlock()
		if got >= n {
			return
		}
		select {
		case <-changed:
		case <-o.done:
			return
		}
	}
}

// failure is the writer's error.
func (o *output) failure() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		return nil
	}
	return fmt.Errorf("write the command's output: %w", o.err)
}

// maxReports bounds what comes from the port of reports, in bytes.
const maxReports = 64 << 10

// reports reads reports from their port.
type reports struct{ r *bufio.Reader }

func newReports(port io.Reader) *reports {
	return &reports{bufio.NewReader(io.LimitReader(port, maxReports))}
}

// next reads a report; io.EOF where the VM ended without.
func (p *reports) next() (report plan.Report, err error) {
	line, err := p.r.ReadBytes('\n')
	if err != nil {
		return report, err
	}
	if err := json.Unmarshal(line, &report); err != nil {
		return report, fmt.Errorf("read the primary VM's report: %w", err)
	}
	if report.Exit < 0 || report.Exit > 255 || report.Stdout < 0 || report.Stderr < 0 {
		return plan.Report{}, fmt.Errorf("read the primary VM's report: exit code %d, %d and %d bytes of output cannot be",
			report.Exit, report.Stdout, report.Stderr)
	}
	return report, nil
}
