package instance

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"strings"
)

// HostMemory is the memory of the machine that runs the enclaves, or of the control group that bounds this process, in
// bytes.
type HostMemory struct {
	Total     uint64 // with swap: MemTotal and SwapTotal of proc(5)
	Available uint64 // without swapping: MemAvailable of proc(5)
}

// ReadHostMemory reads how much memory this host has.
func ReadHostMemory() (m HostMemory, err error) {
	raw, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return m, err
	}
	total, ok1 := meminfo(raw, "MemTotal")
	swap, ok2 := meminfo(raw, "SwapTotal")
	available, ok3 := meminfo(raw, "MemAvailable")
	if !ok1 || !ok2 || !ok3 {
		return m, errors.New("/proc/meminfo lacks MemTotal, SwapTotal or MemAvailable")
	}
	m = HostMemory{Total: total + swap, Available: available}
	limit, err1 := readNumber("/sys/fs/cgroup/memory.max")
	used, err2 := readNumber("/sys/fs/cgroup/memory.current")
	if err1 == nil && err2 == nil { // else there is no limit
		m.Total = min(m.Total, limit)
		m.Available = min(m.Available, limit-min(used, limit))
	}
	return m, nil
}

// meminfo finds a line of /proc/meminfo and returns its value in bytes.
func meminfo(raw []byte, name string) (bytesOf uint64, ok bool) {
	for line := range bytes.Lines(raw) {
		if rest, found := bytes.CutPrefix(line, []byte(name+":")); found {
			kib, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(string(rest)), " kB"), 10, 50)
			return kib << 10, err == nil
		}
	}
	return 0, false
}

func readNumber(path string) (uint64, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(raw)), 10, 64)
}
