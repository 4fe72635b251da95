package qemu

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/qemu/setup"
)

func TestTheKernelIsGivenTheFrequencyOfItsCounter(t *testing.T) {
	require.Equal(t, "tsc_early_khz=2596128 tsc=reliable no_timer_check lpj=10384513", tcgCmdline(2596128180))
	require.Equal(t, "tsc_early_khz=1000000 tsc=reliable no_timer_check lpj=4000000", tcgCmdline(1e9))
}

// clockReading is a line of a guest that prints its clock, and when it came.
type clockReading struct {
	guest, date, came time.Time
	source            string
}

// late is how long after the guest's clock, which began at some time, the line came.
func (r clockReading) late() time.Duration { return r.came.Sub(r.guest) }

// clockReadings is a console that collects them.
type clockReadings struct {
	mu   sync.Mutex
	line []byte
	all  []clockReading
}

func (c *clockReadings) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.line = append(c.line, p...)
	for {
		line, rest, whole := bytes.Cut(c.line, []byte("\n"))
		if !whole {
			return len(p), nil
		}
		c.line = rest
		var uptime, date int64
		r := clockReading{came: time.Now()}
		if n, _ := fmt.Sscanf(string(line), "clock %d %d %s", &uptime, &date, &r.source); n == 3 {
			r.guest, r.date = time.Unix(0, uptime), time.Unix(0, date)
			c.all = append(c.all, r)
		}
	}
}

// pace is how much the guest's clock gained on the host's, relatively, over at least so long, or false. A busy host
// delays lines, so that of many lines at either end that counts which was least delayed.
func (c *clockReadings) pace(least time.Duration) (gain float64, ok bool) {
	const ends = 25
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.all) < 2*ends {
		return 0, false
	}
	earliest := func(some []clockReading) clockReading {
		return slices.MinFunc(some, func(a, b clockReading) int { return cmp.Compare(a.late(), b.late()) })
	}
	from, to := earliest(c.all[:ends]), earliest(c.all[len(c.all)-ends:])
	host := to.came.Sub(from.came)
	if host < least {
		return 0, false
	}
	return to.guest.Sub(from.guest).Seconds()/host.Seconds() - 1, true
}

func (c *clockReadings) last() clockReading {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all[len(c.all)-1]
}

// clockKernel is a kernel and the machine that it is made for.
type clockKernel struct {
	file    *os.File
	machine MachineType
}

// clockKernels are the kernels that there are: Debian's, and one shaped as AWS's where it was built.
func clockKernels(t *testing.T) map[string]clockKernel {
	p, err := parts()
	require.NoError(t, err)
	kernels := map[string]clockKernel{"the distribution's kernel": {memfd(t, p.kernel), ACPI}}
	k, err := setup.FindKernel()
	require.NoError(t, err)
	if shaped, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(k.Image)), "nitro", "vmlinuz")); err == nil {
		kernels["a kernel shaped as AWS's"] = clockKernel{memfd(t, shaped), Nitro}
	}
	return kernels
}

// An enclave's clock once ran 30 % fast, or, when its kernel had given the TSC up, some percent slow.
func TestAGuestsClockRunsAsTheHosts(t *testing.T) {
	for name, kernel := range clockKernels(t) {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			cfg, _ := guest(t, "DO=clock")
			cfg.Kernel, cfg.Machines, cfg.CPUs = kernel.file, []MachineType{kernel.machine}, 2
			var console clockReadings
			cfg.Console = &console
			boot(t, cfg)
			var gain float64
			// The longer it runs the less a delayed line counts; a wrong clock stays wrong.
			require.Eventually(t, func() bool {
				var enough bool
				gain, enough = console.pace(5 * time.Second)
				return enough && math.Abs(gain) < 0.02
			}, waitLimit, 100*time.Millisecond, "its clock does not run as the host's")
			last := console.last()
			require.Contains(t, last.source, "tsc")
			t.Logf("gains %+.3f %%, is %v from the host's date, by %s", gain*100, last.date.Sub(last.came), last.source)
		})
	}
}
