package instance

import (
	"fmt"

	"github.com/nesim/nesim/eif"
	"github.com/nesim/nesim/sim/hypervisor"
	"github.com/nesim/nesim/sim/workload"
)

// RunSpec is what a parent asks for when it runs an enclave: the flags of nitro-cli's run-enclave.
type RunSpec struct {
	EIFPath   string   `json:"eif_path"`
	CPUCount  int      `json:"cpu_count,omitempty"` // CPUs to choose from the pool, unless CPUIDs names them
	CPUIDs    []uint32 `json:"cpu_ids,omitempty"`
	MemoryMiB uint64   `json:"memory_mib"`
	CID       uint64   `json:"enclave_cid,omitempty"` // 0: the hypervisor chooses
	Debug     bool     `json:"debug_mode,omitempty"`
	Name      string   `json:"enclave_name,omitempty"` // empty: the EIF's file name without its ending
	NoNSM     bool     `json:"no_nsm,omitempty"`
	Machine   string   `json:"machine,omitempty"` // auto, nitro or acpi; empty: the instance's
}

// RunInfo is what nitro-cli's run-enclave prints, with its keys in its order.
type RunInfo struct {
	Name      string   `json:"EnclaveName"`
	ID        string   `json:"EnclaveID"`
	ProcessID int      `json:"ProcessID"`
	CID       uint64   `json:"EnclaveCID"`
	CPUCount  int      `json:"NumberOfCPUs"`
	CPUIDs    []uint32 `json:"CPUIDs"`
	MemoryMiB uint64   `json:"MemoryMiB"`
}

// Description is what nitro-cli's describe-enclaves prints of one enclave, with its keys in its order.
type Description struct {
	RunInfo
	State        string           `json:"State"` // RUNNING or TERMINATING
	Flags        string           `json:"Flags"` // NONE or DEBUG_MODE
	Measurements eif.Measurements `json:"Measurements"`
	eif.Identity                  // where the metadata was asked for
}

// Ending reports how an enclave ended.
type Ending struct {
	Name   string `json:"EnclaveName"`
	ID     string `json:"EnclaveID"`
	Reason string `json:"Reason"`           // asked, guest exit, guest panic, VM killed ...
	Detail string `json:"Detail,omitempty"` // one line more, if known
	// ExitCode is the workload's exit code, and Signal the name of the signal that killed it, as SIGKILL: one of the two
	// if the enclave's init reported it.
	ExitCode *int   `json:"ExitCode,omitempty"`
	Signal   string `json:"Signal,omitempty"`
	Asked    bool   `json:"Asked"` // whether the parent had asked for it
	// HangUpMicros is the time from the end of the virtual machine, as the hypervisor saw it, to the hang-up of the
	// parent's descriptor, in microseconds; 0 where the parent asked for the end.
	HangUpMicros int64 `json:"HangUpMicros"`
}

// report takes over how the virtual machine, and in it the workload, ended.
func (e *Ending) report(exit hypervisor.Exit) {
	e.Reason, e.Detail = exit.Reason.String(), exit.Detail
	switch {
	case exit.Code != nil:
		e.ExitCode, e.Detail = exit.Code, workload.Report{Code: *exit.Code}.String()
	case exit.Signal != 0:
		e.Signal = workload.SignalName(exit.Signal)
	}
}

// Cause describes the end in a few words for people.
func (e Ending) Cause() string {
	if e.Detail == "" {
		return e.Reason
	}
	return e.Reason + ": " + e.Detail
}

// enclaveID gives an enclave's ID as nitro-cli makes it: the parent's instance ID and the slot's unique ID.
func enclaveID(instance string, slotUID uint64) string {
	return fmt.Sprintf("%s-enc%x", instance, slotUID)
}

// InstanceID is the parent's EC2 instance ID where none is given: the one that nitro-cli takes where there is none.
const InstanceID = "i-0000000000000000"
