package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/eif"
	"github.com/nesim/nesim/eif/pack"
	"github.com/nesim/nesim/qemu/setup"
	"github.com/nesim/nesim/sim/primary"
)

// limit is generous: all is under TCG, maybe on a busy machine.
const limit = 4 * time.Minute

// tempDir is a folder whose name is short enough for sockets.
func tempDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "nesim-conf-")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// buildGuest builds the program that runs in the primary VM.
func buildGuest(t *testing.T, dir string) string {
	path := filepath.Join(dir, "guest")
	build := exec.Command("go", "build", "-o", path, "./guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOAMD64=v1")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return path
}

// buildSample compiles the kernel's sample as it is.
func buildSample(t *testing.T, dir string) string {
	source, err := setup.FindSample()
	require.NoError(t, err)
	path := filepath.Join(dir, "ne_ioctl_sample")
	out, err := exec.Command("gcc", "-static", "-o", path, source, "-lpthread").CombinedOutput()
	require.NoError(t, err, "a C compiler and static glibc are needed (Debian: gcc libc6-dev linux-libc-dev): %s", out)
	return path
}

// buildHello builds an image with the hello workload.
func buildHello(t *testing.T, dir string) string {
	app, err := pack.Hello()
	require.NoError(t, err)
	kernel, err := setup.FindKernel()
	require.NoError(t, err)
	modules, err := kernel.LoadOrder(pack.Modules...)
	require.NoError(t, err)
	path := filepath.Join(dir, "hello.eif")
	_, err = pack.Build(t.Context(), pack.Spec{Application: app, Kernel: kernel.Image, Modules: modules, Output: path})
	require.NoError(t, err)
	return path
}

// tinyImage is a sound image that no machine could run.
func tinyImage(t *testing.T, dir string) (path string, data []byte) {
	path = filepath.Join(dir, "tiny.eif")
	file, err := os.Create(path)
	require.NoError(t, err)
	defer file.Close()
	metadata, err := eif.Metadata{ImageName: "tiny"}.Encode()
	require.NoError(t, err)
	_, err = eif.Build(t.Context(), file, eif.BuildSpec{
		Kernel: strings.NewReader("kernel"), Cmdline: "quiet", Ramdisks: []io.Reader{strings.NewReader("ramdisk")}, Metadata: metadata,
	})
	require.NoError(t, err)
	data, err = os.ReadFile(path)
	require.NoError(t, err)
	return path, data
}

// parentVM is a primary VM with an agent in it.
type parentVM struct {
	in     *io.PipeWriter
	kernel lockedBuffer
	kill   context.CancelFunc
	done   chan struct{} // closed when Run has returned, with err
	err    error

	mu   sync.Mutex
	jobs []*job
}

// boot boots a primary VM whose command is the agent. It is ended, if it has not ended by then, at the test's end.
func boot(t *testing.T, cfg primary.Config, guest string, files ...string) *parentVM {
	var err error
	cfg.QEMU, err = setup.FindQEMU(t.Context())
	require.NoError(t, err)
	cfg.Kernel, err = setup.FindDebianKernel()
	require.NoError(t, err)
	cfg.Busybox, err = setup.FindBusybox()
	require.NoError(t, err)
	for _, file := range append(files, guest) {
		cfg.Copies = append(cfg.Copies, primary.Copy{From: file})
	}
	v := &parentVM{done: make(chan struct{})}
	cfg.Accel = "tcg"
	cfg.Command = "exec /root/guest agent"
	out, in := io.Pipe()
	cfg.Stdin, v.in = out, in
	news, agent := io.Pipe()
	cfg.Stdout, cfg.Stderr, cfg.KernelLog = agent, &v.kernel, &v.kernel
	ctx, cancel := context.WithCancel(context.Background())
	v.kill = cancel
	var reading sync.WaitGroup
	reading.Go(func() { v.read(news) })
	go func() {
		defer close(v.done)
		_, v.err = primary.Run(ctx, cfg)
		agent.Close()
		out.Close()
		reading.Wait()
		v.endJobs()
	}()
	t.Cleanup(func() {
		cancel()
		<-v.done
		if t.Failed() {
			t.Logf("the primary VM: %v\n%s", v.err, v.kernel.String())
		}
	})
	return v
}

// read takes the agent's news.
func (v *parentVM) read(r io.Reader) {
	lines := json.NewDecoder(r)
	for {
		var n news
		if lines.Decode(&n) != nil {
			_, _ = io.Copy(io.Discard, r)
			return
		}
		v.mu.Lock()
		j := v.jobs[n.ID]
		v.mu.Unlock()
		j.take(n)
	}
}

func (v *parentVM) endJobs() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, j := range v.jobs {
		j.take(news{Ended: true, Exit: -1})
	}
}

// start starts a command.
func (v *parentVM) start(t *testing.T, command string) *job {
	v.mu.Lock()
	j := &job{T: t, command: command, changed: make(chan struct{})}
	id := len(v.jobs)
	v.jobs = append(v.jobs, j)
	v.mu.Unlock()
	line, err := json.Marshal(request{ID: id, Command: command})
	require.NoError(t, err)
	_, err = v.in.Write(append(line, '\n'))
	require.NoError(t, err, "the primary VM has ended: %v", v.err)
	return j
}

// must runs a command that has to succeed, and returns what it wrote.
func (v *parentVM) must(t *testing.T, command string) string {
	t.Helper()
	exit, output := v.start(t, command).wait()
	require.Zero(t, exit, "%s: %s", command, output)
	return output
}

// finish ends the agent, and with it the VM.
func (v *parentVM) finish() error {
	v.in.Close()
	<-v.done
	return v.err
}

// job is a command that runs in the VM.
type job struct {
	*testing.T
	command string

	mu      sync.Mutex
	changed chan struct{}
	output  bytes.Buffer
	ended   bool
	exit    int
}

func (j *job) take(n news) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.ended {
		return
	}
	j.output.WriteString(n.Output)
	j.ended, j.exit = n.Ended, n.Exit
	close(j.changed)
	j.changed = make(chan struct{})
}

// until waits until done says so.
func (j *job) until(what string, done func() bool) {
	j.Helper()
	deadline := time.After(limit)
	for {
		j.mu.Lock()
		ok, changed, text := done(), j.changed, j.output.String()
		j.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			require.FailNow(j, "took too long", "%s: no %s:\n%s", j.command, what, text)
		}
	}
}

// says waits for a text in the command's output.
func (j *job) says(text string) {
	j.Helper()
	var ended bool
	j.until(text, func() bool {
		ended = j.ended
		return ended || strings.Contains(j.output.String(), text)
	})
	require.Contains(j, j.output.String(), text, "%s", j.command)
}

func (j *job) wait() (exit int, output string) {
	j.Helper()
	j.until("end", func() bool { return j.ended })
	return j.exit, j.output.String()
}

// lockedBuffer is a bytes.Buffer for several goroutines.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// record keeps a transcript where NESIM_TRANSCRIPTS names a folder, and in the test's log.
func record(t *testing.T, name, text string) {
	t.Logf("%s:\n%s", name, text)
	if dir := os.Getenv("NESIM_TRANSCRIPTS"); dir != "" {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
}

func quietLog(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }
