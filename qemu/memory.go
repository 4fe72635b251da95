package qemu

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
)

// Memory is what QEMU itself takes beside the guest's RAM, in bytes: the anonymous memory that is resident (RssAnon of
// /proc/PID/status, proc(5)). The guest's RAM is a memfd, and the pages of QEMU's program are all machines'.
func (m *Machine) Memory() (uint64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.PID()))
	if err != nil {
		return 0, err
	}
	return residentAnonymous(status)
}

func residentAnonymous(status []byte) (uint64, error) {
	const name, unit = "RssAnon:", "kB"
	for line := range bytes.Lines(status) {
		if value, found := bytes.CutPrefix(line, []byte(name)); found {
			kib, err := strconv.ParseUint(string(bytes.TrimSpace(bytes.TrimSuffix(bytes.TrimSpace(value), []byte(unit)))), 10, 44)
			return kib << 10, err
		}
	}
	return 0, errors.New("the process has ended: its memory is not told any more")
}
