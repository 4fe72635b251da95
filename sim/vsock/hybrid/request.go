package hybrid

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/nesim/nesim/sim/vsock"
)

// maxRequest bounds a request, its end of line included, as in Firecracker.
const maxRequest = 32

// readRequest reads "CONNECT <port>\n", in capitals or not, and returns the port. It reads nothing beyond: that is the
// guest's already. A port of 4294967295 stands for any (VMADDR_PORT_ANY), and cannot be connected to.
func readRequest(r io.Reader) (port uint32, err error) {
	line, err := readLine(r)
	if err != nil {
		return 0, err
	}
	words := strings.Fields(line)
	if len(words) != 2 || !strings.EqualFold(words[0], "CONNECT") {
		return 0, fmt.Errorf("the request is %q, not CONNECT and a port", line)
	}
	n, err := strconv.ParseUint(words[1], 10, 32)
	if err != nil || uint32(n) == vsock.PortAny {
		return 0, fmt.Errorf("no port %q: want 0 to %d", words[1], vsock.PortAny-1)
	}
	return uint32(n), nil
}

// readLine reads a line byte by byte, so as to read no more than that, and returns it without its end.
func readLine(r io.Reader) (string, error) {
	var line [maxRequest]byte
	for i := range line {
		if _, err := io.ReadFull(r, line[i:i+1]); err != nil {
			return "", fmt.Errorf("the request ends after %q: %w", line[:i], err)
		}
		if line[i] == '\n' {
			return string(line[:i]), nil
		}
	}
	return "", errors.New("the request is longer than " + strconv.Itoa(maxRequest) + " bytes")
}
