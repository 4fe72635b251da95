package main

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/sim/hypervisor"
	"github.com/nesim/nesim/sim/instance"
)

// badEnding is the error of a command that stays with an enclave to its end, where the enclave or its workload failed.
type badEnding struct {
	code int // the command's exit code
	text string
}

func (e *badEnding) Error() string { return e.text }

// endingError is nil for an enclave that ended as it should: by its workload's exit with code 0, because the parent asked,
// or by itself, where no init reported on a workload. Else the exit code is the workload's, 128 and the signal's number
// where one killed it, as of a shell, and 1 for all that is not the workload's doing.
func endingError(e instance.Ending) error {
	text := "the enclave ended: " + e.Cause()
	switch {
	case e.Signal != "":
		return &badEnding{128 + int(unix.SignalNum(e.Signal)), text}
	case e.ExitCode != nil && *e.ExitCode != 0:
		return &badEnding{*e.ExitCode, text}
	case e.Asked, e.ExitCode != nil, e.Reason == hypervisor.ExitGuest.String() && e.Detail == "":
		return nil
	}
	return &badEnding{1, fmt.Sprintf("%s: no exit code of its workload is known", text)}
}
