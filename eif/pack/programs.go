package pack

import (
	"embed"
	"fmt"
	"io/fs"
)

// embedded holds the enclave's programs, cmd/init and cmd/hello built static for the enclave, put there by the
// Makefile before nesim itself is built.
//
//go:embed all:programs
var embedded embed.FS

// programs is where programs are read from. Tests of boots put others there.
var programs fs.FS = embedded

// program returns an embedded program.
func program(name string) ([]byte, error) {
	data, err := fs.ReadFile(programs, "programs/"+name)
	if err != nil {
		return nil, fmt.Errorf("this nesim was built without the enclave's %s: run make build", name)
	}
	return data, nil
}
