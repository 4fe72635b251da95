package setup

import (
	"errors"
	"fmt"
	"os"
)

// FindBusybox returns the path of the static busybox that a primary VM has for a shell and tools: NESIM_BUSYBOX, else
// the one that fetch.sh --parent unpacked.
func FindBusybox() (string, error) {
	if path := os.Getenv("NESIM_BUSYBOX"); path != "" {
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("NESIM_BUSYBOX: %w", err)
		}
		return path, nil
	}
	if path, _ := cachedFile("busybox/busybox"); path != "" {
		return path, nil
	}
	return "", errors.New("no busybox found for the primary VM: run `make deps`, or set NESIM_BUSYBOX to a static one")
}

// FindSample returns the path of the NE driver's sample program, ne_ioctl_sample.c, that fetch.sh --conformance took
// out of the kernel's source.
func FindSample() (string, error) {
	if path, _ := cachedFile("sample/ne_ioctl_sample.c"); path != "" {
		return path, nil
	}
	return "", errors.New("ne_ioctl_sample.c is not there: `make test` fetches it, by qemu/setup/fetch.sh --conformance")
}
