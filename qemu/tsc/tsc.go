// Package tsc finds the frequency of the time stamp counter (TSC) that QEMU gives its guests under TCG.
//
// There the guest's RDTSC returns the host's own counter (QEMU, include/qemu/timer.h, cpu_get_host_ticks), at the host's
// frequency and whatever the guest's kernel believes it to be. On an x86_64 host that counter is the host's TSC, whose
// frequency is nowhere to be read without privilege, so that it is measured against CLOCK_MONOTONIC_RAW. QEMU reads no
// counter of an arm64 host; it counts nanoseconds there.
package tsc

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// goodEnough ends a measurement: the greatest relative error that it may have.
	goodEnough = 20e-6
	// longest bounds a measurement that never becomes good enough, on a host so busy that every sample is interrupted.
	longest = 250 * time.Millisecond
	// useless is the relative error above which a measurement says nothing.
	useless = 1e-3
	// drift is how far a frequency may be from the last one and still be its refinement. Beyond it something has
	// happened: the host was suspended while its counter went on or began anew, or has moved to another processor.
	drift = 100e-6
	// tries is how many samples are taken for the one that was least interrupted.
	tries = 8
)

// A Meter measures the frequency of a counter, ever more exactly the longer it lives. Its methods may be called from
// any goroutine. The zero Meter is not usable.
type Meter struct {
	read func() uint64 // the counter
	now  func() time.Duration
	wait func(time.Duration)

	mu    sync.Mutex
	first sample
	last  float64 // Hz; 0: never measured
}

// sample is a reading of the counter at some time that is known but for an error.
type sample struct {
	ticks   uint64
	at, err time.Duration
}

// NewMeter returns a Meter of a counter.
func NewMeter(counter func() uint64) *Meter {
	return &Meter{read: counter, now: monotonic, wait: time.Sleep}
}

// monotonic is CLOCK_MONOTONIC_RAW, which no NTP daemon slews.
func monotonic() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC_RAW, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// Hz returns the counter's frequency. The first call takes some milliseconds; later ones compare the counter with what
// it was then, and so take no time. The error is of a counter that stands still, or of a host too busy to measure on.
func (m *Meter) Hz() (float64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.last != 0 {
		s := m.sample()
		if hz, err := frequency(m.first, s); math.Abs(hz/m.last-1) <= drift && err <= drift {
			m.last = hz
			return hz, nil
		}
	}
	return m.measure()
}

// measure begins anew. m.mu is held.
func (m *Meter) measure() (float64, error) {
	m.last = 0
	m.first = m.sample()
	for {
		m.wait(longest / 50)
		s := m.sample()
		hz, err := frequency(m.first, s)
		spent := s.at - m.first.at
		switch {
		case s.ticks <= m.first.ticks && spent >= longest:
			return 0, errors.New("measure the host's time stamp counter: it stands still")
		case err > goodEnough && spent < longest:
			continue
		case err > useless:
			return 0, fmt.Errorf("measure the host's time stamp counter: the host is too busy (error %.1f %%)", err*100)
		}
		m.last = hz
		return hz, nil
	}
}

// frequency is what two samples say, in Hz, and its relative error. A counter that did not advance has an infinite one.
func frequency(from, to sample) (hz, err float64) {
	span := (to.at - from.at).Seconds()
	if to.ticks <= from.ticks || span <= 0 {
		return 0, math.Inf(1)
	}
	return float64(to.ticks-from.ticks) / span, (from.err + to.err).Seconds() / span
}

// sample reads the counter between two readings of the clock that are close together.
func (m *Meter) sample() sample {
	best := sample{err: math.MaxInt64}
	for range tries {
		before := m.now()
		ticks := m.read()
		after := m.now()
		if err := (after - before) / 2; err < best.err {
			best = sample{ticks, before + err, err}
		}
	}
	return best
}
