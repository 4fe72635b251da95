package workload

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestTheEndOfTheWorkloadIsDescribed(t *testing.T) {
	require.Equal(t, "workload exited with code 0", Of(0).String())
	require.Equal(t, "workload exited with code 3", Of(3<<8).String())
	require.Equal(t, "workload killed by signal 9 (SIGKILL)", Of(unix.WaitStatus(unix.SIGKILL)).String())
	require.Equal(t, "workload killed by signal 11 (SIGSEGV)", Of(unix.WaitStatus(unix.SIGSEGV)|0x80).String(), "with a core dump")
}

func TestAReportIsFoundOnTheConsole(t *testing.T) {
	reports := []Report{{Error: "start workload: no program"}}
	for n := range 256 {
		reports = append(reports, Report{Code: n})
	}
	for n := range 64 {
		reports = append(reports, Report{Signal: n + 1})
	}
	for _, want := range reports {
		got, ok := Find([]byte("hello\r\n" + want.Line() + "\r\n[    2.1] reboot: Restarting system\r\n"))
		require.True(t, ok, want)
		require.Equal(t, want, got)
	}
}

func TestOnlyTheConsolesLastLinesCount(t *testing.T) {
	said := Report{Code: 3}.Line()
	for console, found := range map[string]bool{
		"":                                  false,
		said:                                true,
		"half a line" + said + "\r\n":       true,
		said + strings.Repeat("\nmore", 15): true,
		said + strings.Repeat("\nmore", 16): false,
		said + strings.Repeat("x", 5000):    false,
		said + " or not":                    false,
		"he said init: error: x":            false,
		"init: workload exited with code 256; powering off":                  false,
		"init: workload killed by signal 0 (0); powering off":                false,
		"init: workload killed by signal 65 (SIGNAL); powering off":          false,
		"init: workload exited with code -1; powering off":                   false,
		"init: heartbeat answered by CID 3; starting /hello":                 false,
		"init: workload exited with code 18446744073709551619; powering off": false,
	} {
		_, ok := Find([]byte(console))
		require.Equal(t, found, ok, "%q", console)
	}
	last, _ := Find([]byte(Report{Code: 1}.Line() + "\n" + Report{Signal: 9}.Line() + "\n"))
	require.Equal(t, Report{Signal: 9}, last)
}

func FuzzFind(f *testing.F) {
	f.Add([]byte(Report{Code: 3}.Line() + "\r\nreboot: Restarting system\n"))
	f.Add([]byte(Report{Signal: 34}.Line()))
	f.Add([]byte(Report{Error: "x"}.Line()))
	f.Fuzz(func(t *testing.T, console []byte) {
		r, ok := Find(console)
		if !ok {
			return
		}
		require.True(t, r.Code >= 0 && r.Code <= 255 && r.Signal >= 0 && r.Signal <= 64 && len(r.Error) <= maxError)
		again, ok := Find([]byte(r.Line()))
		require.True(t, ok)
		require.Equal(t, r, again)
	})
}
