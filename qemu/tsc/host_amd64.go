package tsc

// host measures this host's TSC, for the life of the process.
var host = NewMeter(rdtsc)

// rdtsc reads the time stamp counter of the processor that it happens to run on, as QEMU does.
func rdtsc() uint64

// HostHz returns the frequency of a guest's TSC under TCG on this host, in Hz: that of the host's own.
func HostHz() (float64, error) { return host.Hz() }
