package pack

import (
	"embed"
	"fmt"
)

// programs holds the enclave's programs, cmd/init and cmd/hello built static for the enclave, put there by the
// Makefile before nesim itself is built.
//
//go:embed all:programs
var programs embed.FS

// program returns an embedded program.
func program(name string) ([]byte, error) {
	data, err := programs.ReadFile("programs/" + name)
	if err != nil {
		return nil, fmt.Errorf("this nesim was built without the enclave's %s: run make build", name)
	}
	return data, nil
}
