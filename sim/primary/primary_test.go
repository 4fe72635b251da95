package primary

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/eif/pack"
	"github.com/nesim/nesim/qemu/setup"
	"github.com/nesim/nesim/sim/primary/plan"
)

func TestCopiesAreReadFromTheCommandLine(t *testing.T) {
	for arg, want := range map[string]Copy{
		"file":           {"file", ""},
		"a/file":         {"a/file", ""},
		"file:/opt/name": {"file", "/opt/name"},
	} {
		got, err := ParseCopy(arg)
		require.NoError(t, err, arg)
		require.Equal(t, want, got)
	}
	for _, arg := range []string{"", ":", ":/opt", "file:", "file:relative"} {
		_, err := ParseCopy(arg)
		require.Error(t, err, arg)
	}
}

func TestAFolderIsCopiedWithAllThatIsInIt(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "below"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "below/file"), nil, 0o644))
	require.NoError(t, os.Link(filepath.Join(dir, "below/file"), filepath.Join(dir, "below/link")))
	require.NoError(t, os.Symlink("file", filepath.Join(dir, "below/symbolic")))
	for to, want := range map[string]string{"": "root/dir", "/opt/../srv/": "srv"} {
		entries, err := Copy{From: dir, To: to}.entries(t.Context())
		require.NoError(t, err)
		names := map[string]pack.Entry{}
		for _, e := range entries {
			names[e.Name] = e
		}
		require.Len(t, names, 5)
		require.Contains(t, names, want)
		require.Equal(t, want+"/below/file", names[want+"/below/link"].LinkTo)
		require.Equal(t, "file", names[want+"/below/symbolic"].Target)
	}
	_, err := Copy{From: "/dev/null"}.entries(t.Context())
	require.ErrorContains(t, err, "neither a file nor a folder")
}

func TestDefaultsFitTogether(t *testing.T) {
	var cfg Config
	require.NoError(t, cfg.setDefaults())
	require.Equal(t, "2-3", cfg.CPUPool)
	require.Equal(t, 1024, cfg.HugeMiB)

	cfg = Config{CPUs: 8, ThreadsPerCore: 1, MemoryMiB: 4096, HugeMiB: 512, HugeGiB: 1, FarMiB: 128, CPUPool: "3"}
	require.NoError(t, cfg.setDefaults())
	require.Equal(t, "3", cfg.CPUPool)
	require.NotContains(t, cfg.arguments("tcg"), "-smbios")
	cfg.InstanceID = "i-1,asset=x"
	args := strings.Join(cfg.arguments("tcg"), " ")
	require.Contains(t, args, "-smbios type=2,manufacturer=Amazon EC2,asset=i-1,,asset=x ")
	require.Contains(t, args, "-smp 8,sockets=1,cores=8,threads=1")
	require.Contains(t, args, "-m 4224 ")
	require.Contains(t, args, "hugepagesz=1G hugepages=0:1 hugepagesz=2M hugepages=0:256,1:32")
	require.Contains(t, args, "tsc=reliable")
	require.NotContains(t, strings.Join(cfg.arguments("kvm"), " "), "tsc")
}

func TestWhatCannotBeIsRefused(t *testing.T) {
	for says, cfg := range map[string]Config{
		"CPUs":       {CPUs: 256},
		"cores":      {CPUs: 3},
		"threads":    {CPUs: 8, ThreadsPerCore: 4},
		"memory":     {MemoryMiB: -1},
		"huge pages": {MemoryMiB: 1024, HugeMiB: 1000},
		"2 MiB each": {MemoryMiB: 1024, HugeMiB: 3},
		"NUMA":       {FarMiB: 2},
		"NUL":        {Command: "a\x00b"},
	} {
		require.ErrorContains(t, cfg.setDefaults(), says)
	}
}

func TestAFileTooLargeForTheVMIsRefused(t *testing.T) {
	large := filepath.Join(t.TempDir(), "large")
	require.NoError(t, os.WriteFile(large, nil, 0o644))
	require.NoError(t, os.Truncate(large, 200<<20))
	kernel, err := setup.FindDebianKernel()
	require.NoError(t, err)
	busybox, err := setup.FindBusybox()
	require.NoError(t, err)
	cfg := Config{Kernel: kernel, Busybox: busybox, MemoryMiB: 512, HugeMiB: 128, Copies: []Copy{{From: large}}}
	require.NoError(t, cfg.setDefaults())
	_, err = cfg.buildInitramfs(t.Context())
	require.ErrorContains(t, err, "do not fit into the primary VM")
}

func TestOutputIsAwaitedToTheLastByte(t *testing.T) {
	r, w := io.Pipe()
	var got strings.Builder
	o := newOutput(&got)
	go o.copy(r)
	go func() {
		for range 100 {
			_, _ = w.Write([]byte("ten bytes."))
		}
	}()
	o.await(1000)
	require.Equal(t, strings.Repeat("ten bytes.", 100), got.String())
	w.Close()
	o.await(2000) // nothing more can come
	<-o.done
	require.NoError(t, o.failure())
}

func TestOutputThatNobodyTakesIsDropped(t *testing.T) {
	r, w := io.Pipe()
	closed, taker := io.Pipe()
	closed.CloseWithError(errors.New("nobody"))
	o := newOutput(taker)
	go o.copy(r)
	for range 3 {
		_, err := w.Write([]byte("text"))
		require.NoError(t, err)
	}
	o.await(12)
	w.Close()
	<-o.done
	require.ErrorContains(t, o.failure(), "nobody")
}

func TestReports(t *testing.T) {
	p := newReports(strings.NewReader("{\"ready\":true}\n{\"exit\":3,\"stdout\":7}\n{\"exit\""))
	report, err := p.next()
	require.NoError(t, err)
	require.True(t, report.Ready)
	report, err = p.next()
	require.NoError(t, err)
	require.Equal(t, plan.Report{Exit: 3, Stdout: 7}, report)
	_, err = p.next()
	require.ErrorIs(t, err, io.EOF)
	_, err = newReports(strings.NewReader("nonsense\n")).next()
	require.Error(t, err)
	_, err = newReports(strings.NewReader(strings.Repeat(" ", maxReports+1) + "\n")).next()
	require.ErrorIs(t, err, io.EOF)
}

func TestTheEndOfALongTextIsKept(t *testing.T) {
	var all strings.Builder
	tl := &tail{next: &all}
	text := strings.Repeat("\x1b[1m line\r\n", 10_000) + "the last"
	_, _ = tl.Write([]byte(text))
	require.Equal(t, text, all.String())
	require.Equal(t, []string{"[1m line", "the last"}, tl.lines(2))
	require.LessOrEqual(t, len(tl.buf), tailSize)
}

func FuzzReports(f *testing.F) {
	f.Add("{\"ready\":true}\n{\"exit\":3}\n")
	f.Add("{\"exit\":256}\n") // an exit code of which a process would make 0
	f.Add("{\"exit\":-1,\"stdout\":-7}\n")
	f.Fuzz(func(t *testing.T, text string) {
		p := newReports(strings.NewReader(text))
		for {
			report, err := p.next()
			if err != nil {
				return
			}
			require.True(t, report.Exit >= 0 && report.Exit <= 255 && report.Stdout >= 0 && report.Stderr >= 0)
		}
	})
}
