package tsc

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// bench is a counter and a clock that a test sets going.
type bench struct {
	ticks   float64
	now     time.Duration
	hz      float64
	latency time.Duration // what a reading of the clock takes
}

func (b *bench) advance(d time.Duration) {
	b.now += d
	b.ticks += b.hz * d.Seconds()
}

func (b *bench) meter() *Meter {
	return &Meter{
		read: func() uint64 { return uint64(b.ticks) },
		now: func() time.Duration {
			b.advance(b.latency)
			return b.now
		},
		wait: b.advance,
	}
}

func TestAFrequencyIsMeasuredAndThenRefined(t *testing.T) {
	b := &bench{hz: 2596128175, latency: 200 * time.Nanosecond}
	m := b.meter()
	hz, err := m.Hz()
	require.NoError(t, err)
	require.InEpsilon(t, b.hz, hz, goodEnough)
	require.Less(t, b.now, longest/5, "the first call is quick")

	before := b.now
	b.advance(time.Hour)
	hz, err = m.Hz()
	require.NoError(t, err)
	require.InEpsilon(t, b.hz, hz, 1e-9)
	require.Less(t, b.now-before-time.Hour, longest/50, "later calls do not wait")
}

func TestABusyHostTakesLonger(t *testing.T) {
	b := &bench{hz: 3e9, latency: 3 * time.Microsecond}
	hz, err := b.meter().Hz()
	require.NoError(t, err)
	require.InEpsilon(t, b.hz, hz, goodEnough)

	b = &bench{hz: 3e9, latency: 50 * time.Microsecond}
	hz, err = b.meter().Hz()
	require.NoError(t, err, "as exact as it can be in the time")
	require.InEpsilon(t, b.hz, hz, useless)
	require.Less(t, b.now, 2*longest)

	b = &bench{hz: 3e9, latency: 5 * time.Millisecond}
	_, err = b.meter().Hz()
	require.ErrorContains(t, err, "the host is too busy (error ")
}

func TestACounterThatStandsStill(t *testing.T) {
	_, err := (&bench{latency: time.Microsecond}).meter().Hz()
	require.ErrorContains(t, err, "it stands still")
}

func TestAHostThatWasSuspendedOrMoved(t *testing.T) {
	for what, happens := range map[string]func(*bench){
		"the counter went on while the clock stood": func(b *bench) { b.ticks += 60 * b.hz },
		"the counter began anew":                    func(b *bench) { b.ticks = 0 },
		"another processor":                         func(b *bench) { b.hz *= 1.1 },
		"a processor that is a little slower":       func(b *bench) { b.hz *= 0.999 },
	} {
		t.Run(what, func(t *testing.T) {
			b := &bench{hz: 2e9, latency: 100 * time.Nanosecond}
			m := b.meter()
			_, err := m.Hz()
			require.NoError(t, err)
			b.advance(time.Minute)
			_, err = m.Hz()
			require.NoError(t, err)

			happens(b)
			b.advance(time.Minute)
			hz, err := m.Hz()
			require.NoError(t, err)
			require.InEpsilon(t, b.hz, hz, 2*drift)
			b.advance(time.Hour)
			hz, err = m.Hz()
			require.NoError(t, err)
			require.InEpsilon(t, b.hz, hz, goodEnough)
		})
	}
}

func TestThisHostsCounterAgreesWithItsClock(t *testing.T) {
	hz, err := HostHz()
	require.NoError(t, err)
	require.Greater(t, hz, 1e8)
	again, err := HostHz()
	require.NoError(t, err)
	require.Less(t, math.Abs(again/hz-1), 2*useless)
	t.Logf("%.6f MHz", again/1e6)
}
