// Package daemon serves a simulated instance to the user's commands: HTTP with JSON bodies on a UNIX socket that is
// private to the user, and the client that the commands use, which starts the daemon where none runs.
//
// Server owns the instance and every goroutine of its connections; Run returns when all of them have ended. A
// request's context ends with its connection, so that an interrupted command gives back what it had begun.
package daemon

import (
	"fmt"

	"github.com/nesim/nesim/sim/errcode"
	"github.com/nesim/nesim/sim/instance"
)

const (
	socketName    = "nesim.sock"
	pciSocketName = "pci.sock"
	logName       = "nesim.log"
)

// The paths of the requests.
const (
	pathAbout     = "/about"
	pathShutdown  = "/shutdown"
	pathEnclaves  = "/enclaves"        // GET: [?metadata]
	pathEnclave   = "/enclave"         // DELETE: ?id=, ?name= or ?word=
	pathWait      = "/enclave/wait"    // likewise
	pathConsole   = "/enclave/console" // likewise
	pathVsockDial = "/vsock/dial"      // ?cid=&port=[&wait]
	pathListen    = "/vsock/listen"    // ?port=[&keep]
)

// About describes a running daemon.
type About struct {
	PID       int    `json:"ProcessID"`
	Version   string `json:"Version"`
	Dir       string `json:"Dir"`
	PCISocket string `json:"PCISocket"`
	QEMU      string `json:"QEMU"`
	Accel     string `json:"Accel"`
	CPUPool   string `json:"CPUPool"`
	// InstanceID is the parent's EC2 instance ID.
	InstanceID string `json:"InstanceID"`

	ThreadsPerCore int `json:"ThreadsPerCore"`
}

// message is one line of an answer in parts: a line of progress, or the last, which has the result or the error.
type message struct {
	Progress string            `json:"progress,omitempty"`
	Run      *instance.RunInfo `json:"run,omitempty"`
	failure
}

// failure is the body of an answer with an error's status.
type failure struct {
	Error string       `json:"error,omitempty"`
	Code  errcode.Code `json:"code,omitempty"`
}

func failed(err error) failure { return failure{err.Error(), errcode.Of(err)} }

// err returns the failure as the client's error, with its code.
func (f failure) err() error { return errcode.Wrap(f.Code, &Error{f.Error}) }

// Error is a request that the daemon refused; its text is for people. It may be wrapped with an errcode.Code.
type Error struct{ Text string }

func (e *Error) Error() string { return e.Text }

// NotRunningError means that no daemon answers in a folder.
type NotRunningError struct {
	Dir string
	Err error
}

func (e *NotRunningError) Error() string {
	return fmt.Sprintf("no nesim daemon runs in %s: run-enclave and nesim serve start one", e.Dir)
}

func (e *NotRunningError) Unwrap() error { return e.Err }
