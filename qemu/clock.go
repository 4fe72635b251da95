package qemu

import (
	"fmt"
	"math"

	"github.com/nesim/nesim/qemu/tsc"
)

// kernelHZ is the timer frequency that Debian's cloud kernels and AWS's enclave kernels are configured with (CONFIG_HZ).
const kernelHZ = 250

// TCGCmdline returns the words that a guest's kernel command line needs under TCG, so that its clock is right and its
// boot does not hang. Left to itself a kernel measures its time stamp counter against the PIT, which fails whenever the
// host interrupts it, and then goes by its timer interrupts, of which some are lost.
//
// tsc_early_khz (Linux 5.9 and later) is the counter's true frequency. tsc=reliable (2.6.28 and later) keeps the kernel
// from comparing it with those interrupts and giving it up. lpj, loops per jiffy, is what follows from the frequency; it
// spares the secondary CPUs a measurement that fails in the same way. no_timer_check skips one of the interrupt's.
//
// Under KVM none is wanted: there the kernel reads kvm-clock.
func TCGCmdline() string {
	hz, err := tsc.HostHz()
	if err != nil {
		return "no_timer_check"
	}
	return tcgCmdline(hz)
}

// tcgCmdline is TCGCmdline for a counter of hz.
func tcgCmdline(hz float64) string {
	return fmt.Sprintf("tsc_early_khz=%.0f tsc=reliable no_timer_check lpj=%.0f", hz/1000, math.Round(hz/kernelHZ))
}
