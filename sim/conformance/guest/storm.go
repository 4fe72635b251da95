package main

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/nesim/nesim/sim/nedriver"
)

// stormLanes is how many enclaves there are at a time: one a core of the pool.
const stormLanes = 2

// storm runs n enclaves that end as soon as they have begun. Every end has to be told.
func storm(image []byte, n int) {
	w := newWorld()
	var left, ends atomic.Int64
	left.Store(int64(n))
	var lanes sync.WaitGroup
	begin := time.Now()
	for range stormLanes {
		memory := huge(w, 64*mib)
		lanes.Go(func() {
			for left.Add(-1) >= 0 {
				e := create(w)
				e.regions = [][]byte{memory}
				e.write(nedriver.EIFLoadOffset, image)
				e.donate()
				e.start(0)
				e.awaitHangUp()
				ends.Add(1)
				w.Close(e.fd)
			}
		})
	}
	lanes.Wait()
	fmt.Printf("%d enclaves crashed, %d hang-ups, in %.1f s\n", n, ends.Load(), time.Since(begin).Seconds())
}

// latency measures SLOT_ALLOC, which NE_CREATE_VM is, and SLOT_FREE, which closing a descriptor is.
func latency(n int) {
	w := newWorld()
	var allocs, frees []time.Duration
	for range n {
		start := time.Now()
		e := create(w)
		made := time.Now()
		w.Close(e.fd)
		allocs, frees = append(allocs, made.Sub(start)), append(frees, time.Since(made))
	}
	fmt.Printf("NE_CREATE_VM (SLOT_ALLOC) %v, close (SLOT_FREE) %v: medians of %d\n", median(allocs), median(frees), n)
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2].Round(time.Microsecond)
}

func ptr(b []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(b)) }

func addressOf(b []byte) uint64 { return uint64(uintptr(ptr(b))) }
