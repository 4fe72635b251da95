package nedriver

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/internal/suggest"
)

// ErrorCode is a number that a call of the driver can leave in errno: one of the kernel's errno values or an NE_ERR_*
// code; 0 is success.
type ErrorCode int

// maxErrno is the kernel's largest errno with a name: EHWPOISON of include/uapi/asm-generic/errno.h.
const maxErrno = 133

// maxErrorCode bounds codes given as numbers: MAX_ERRNO of include/linux/err.h.
const maxErrorCode = 4095

// errorCodes are the codes with names.
var errorCodes = func() map[string]ErrorCode {
	all := map[string]ErrorCode{}
	for n := 1; n <= maxErrno; n++ {
		if name := unix.ErrnoName(unix.Errno(n)); name != "" {
			all[name] = ErrorCode(n)
		}
	}
	for e := range errnoTexts {
		all[e.Name()] = ErrorCode(e)
	}
	return all
}()

// String returns the code's name in the kernel's headers, such as ENOSPC or NE_ERR_INVALID_VCPU, or the number if it
// has none.
func (c ErrorCode) String() string {
	if _, ours := errnoTexts[Errno(c)]; ours {
		return Errno(c).Name()
	}
	if name := unix.ErrnoName(unix.Errno(c)); name != "" {
		return name
	}
	return strconv.Itoa(int(c))
}

// UnmarshalText reads a name or a number.
func (c *ErrorCode) UnmarshalText(text []byte) error {
	name := string(text)
	if code, ok := errorCodes[name]; ok {
		*c = code
		return nil
	}
	if n, err := strconv.Atoi(name); err == nil && n >= 0 && n <= maxErrorCode {
		*c = ErrorCode(n)
		return nil
	}
	names := make([]string, 0, len(errorCodes))
	for known := range errorCodes {
		names = append(names, known)
	}
	if near := suggest.Nearest(name, names); near != "" {
		return fmt.Errorf("unknown error %.40q: did you mean %s?", name, near)
	}
	return fmt.Errorf("unknown error %.40q: give an errno such as EBUSY, or an NE_ERR_* code", name)
}
