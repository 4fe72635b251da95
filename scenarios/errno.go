package scenarios

import (
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/sim/nedriver"
)

// Std is the length of time as the standard library has it.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// maxErrno is the largest number that is looked through for errno names: MAX_ERRNO of include/linux/err.h is far above.
const maxErrno = 133

// errnos are the numbers behind names: the kernel's errno values and NE_ERR_*.
var errnos = func() map[string]int {
	all := map[string]int{}
	for n := 1; n <= maxErrno; n++ {
		if name := unix.ErrnoName(unix.Errno(n)); name != "" {
			all[name] = n
		}
	}
	for n := nedriver.NEErrVCPUAlreadyUsed; n <= nedriver.NEErrInvalidEnclaveCID; n++ {
		all[n.Name()] = int(n)
	}
	return all
}()

// ParseErrno reads the name of an error, ENOSPC or NE_ERR_INVALID_VCPU, or its number.
func ParseErrno(name string) (int, error) {
	if n, ok := errnos[name]; ok {
		return n, nil
	}
	if n, err := strconv.Atoi(name); err == nil && n >= 0 && n < 4096 {
		return n, nil
	}
	var names []string
	for known := range errnos {
		names = append(names, known)
	}
	return 0, fmt.Errorf("no error is called %q%s", name, meant(name, names))
}

// ErrnoName is the name of an error's number, or the number where it has none.
func ErrnoName(n int) string {
	if n >= int(nedriver.NEErrVCPUAlreadyUsed) && n <= int(nedriver.NEErrInvalidEnclaveCID) {
		return nedriver.Errno(n).Name()
	}
	if name := unix.ErrnoName(unix.Errno(n)); name != "" {
		return name
	}
	return strconv.Itoa(n)
}
