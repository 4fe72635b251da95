package primary

import (
	"embed"
	"fmt"
)

// programs holds the primary VM's init, cmd/parentinit built static, put there by the Makefile before nesim is built.
//
//go:embed all:programs
var programs embed.FS

func initProgram() ([]byte, error) {
	data, err := programs.ReadFile("programs/parentinit")
	if err != nil {
		return nil, fmt.Errorf("this nesim was built without the primary VM's init: run make build")
	}
	return data, nil
}
